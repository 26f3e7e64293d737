//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// cuBLASLt is NVIDIA's library of matrix products. Where it is installed, the
// products use it that it does faster than our kernels (cost of product.go);
// nothing needs it. SPINNET_CUDA_CUBLAS=0 leaves it alone.
var cuBLASLt struct {
	once    sync.Once
	err     error
	name    string
	version int
	addr    [blasFunctions]uintptr
}

// blasFunction is one function of cuBLASLt.
type blasFunction int

const (
	blasCreate blasFunction = iota
	blasDestroy
	blasGetVersion
	blasDescCreate
	blasDescSet
	blasDescDestroy
	blasLayoutCreate
	blasLayoutSet
	blasLayoutDestroy
	blasPreferenceCreate
	blasPreferenceSet
	blasPreferenceDestroy
	blasHeuristic
	blasMatmul
	blasFunctions // how many there are
)

var blasSymbols = [blasFunctions]string{
	blasCreate: "cublasLtCreate", blasDestroy: "cublasLtDestroy", blasGetVersion: "cublasLtGetVersion",
	blasDescCreate: "cublasLtMatmulDescCreate", blasDescSet: "cublasLtMatmulDescSetAttribute", blasDescDestroy: "cublasLtMatmulDescDestroy",
	blasLayoutCreate: "cublasLtMatrixLayoutCreate", blasLayoutSet: "cublasLtMatrixLayoutSetAttribute", blasLayoutDestroy: "cublasLtMatrixLayoutDestroy",
	blasPreferenceCreate: "cublasLtMatmulPreferenceCreate", blasPreferenceSet: "cublasLtMatmulPreferenceSetAttribute",
	blasPreferenceDestroy: "cublasLtMatmulPreferenceDestroy",
	blasHeuristic:         "cublasLtMatmulAlgoGetHeuristic", blasMatmul: "cublasLtMatmul",
}

// Numbers of the library's interface.
const (
	blasFloat32          = 0  // CUDA_R_32F
	blasBFloat16         = 14 // CUDA_R_16BF
	blasCompute32        = 68 // CUBLAS_COMPUTE_32F
	blasTransA           = 3  // of a description
	blasTransB           = 4
	blasBatchCount       = 5 // of a layout
	blasBatchStride      = 6
	blasMostWorkspace    = 1 // of a preference
	blasReductions       = 3
	blasAlignA           = 5     // and B, C, D after it
	blasReductionsInside = 2 | 4 // sums of parts in float32 or in the result's type: the same in every run
	blasWorkspace        = 32 << 20
)

// loadCuBLAS opens the library, once.
func loadCuBLAS() error {
	l := &cuBLASLt
	l.once.Do(func() {
		if os.Getenv("SPINNET_CUDA_CUBLAS") == "0" {
			l.err = errors.New("cuda: cuBLASLt is turned off by SPINNET_CUDA_CUBLAS")
			return
		}
		var library uintptr
		for _, l.name = range cublasNames {
			if library, l.err = openLibrary(l.name); l.err == nil {
				break
			}
		}
		if l.err != nil {
			l.err = fmt.Errorf("cuda: cuBLASLt is not installed: %w", l.err)
			return
		}
		for f, name := range blasSymbols {
			if l.addr[f] = symbol(library, name); l.addr[f] == 0 {
				l.err = fmt.Errorf("cuda: %s has no %s", l.name, name)
				return
			}
		}
		r, _, _ := purego.SyscallN(l.addr[blasGetVersion])
		l.version = int(r)
	})
	return l.err
}

// CuBLAS is the version and the name of the cuBLASLt that products may use, or
// why there is none.
func CuBLAS() (string, error) {
	if err := loadCuBLAS(); err != nil {
		return "", err
	}
	v := cuBLASLt.version
	return fmt.Sprintf("%d.%d.%d (%s)", v/10000, v/100%100, v%100, cuBLASLt.name), nil
}

// blas is the library's state on one device.
type blas struct {
	handle     uintptr
	workspaces map[uintptr]uintptr   // of each stream: products of two run at once
	plans      map[product]*blasPlan // of products without addresses
	one, zero  float32

	// What the library reads or writes while a plan is made: here, because a
	// variable of plan would be on its stack, which moves when it grows.
	number     uint64
	preference uintptr
	count      int32
}

// blasPlan is how the library computes products of one shape; nil: it cannot.
type blasPlan struct {
	desc, first, second, result uintptr
	found                       struct {
		algorithm [8]uint64
		workspace uint64
		state     uint32
		waves     float32
		_         [4]uint32
	}
}

// openBLAS gives the library on this device, nil without it.
func (d *Device) openBLAS() *blas {
	if d.err != nil || loadCuBLAS() != nil {
		return nil
	}
	b := &blas{workspaces: map[uintptr]uintptr{}, plans: map[product]*blasPlan{}, one: 1}
	if d.callBLAS(blasCreate, uintptr(unsafe.Pointer(&b.handle))) != 0 {
		return nil
	}
	return b
}

// closeBLAS ends the use of the library.
func (d *Device) closeBLAS() {
	if d.blas == nil {
		return
	}
	for _, q := range d.blas.plans {
		d.closePlan(q)
	}
	d.callBLAS(blasDestroy, d.blas.handle)
	d.blas = nil
}

// closePlan gives back what the library holds for a plan.
func (d *Device) closePlan(q *blasPlan) {
	if q == nil {
		return
	}
	for _, layout := range []uintptr{q.first, q.second, q.result} {
		if layout != 0 {
			d.callBLAS(blasLayoutDestroy, layout)
		}
	}
	if q.desc != 0 {
		d.callBLAS(blasDescDestroy, q.desc)
	}
}

// callBLAS calls the library in the device's context; 0 is success.
func (d *Device) callBLAS(f blasFunction, args ...uintptr) int {
	return d.tryAddress(cuBLASLt.addr[f], args...)
}

// plan finds the library's way for a product, once for each shape. The library
// thinks in columns: it computes the transpose, Cᵀ = op(B)ᵀ·op(A)ᵀ.
func (d *Device) plan(p product) *blasPlan {
	p.a, p.b, p.c = 0, 0, 0
	b := d.blas
	if q, ok := b.plans[p]; ok {
		return q
	}
	q := new(blasPlan)
	failed := false
	do := func(f blasFunction, args ...uintptr) { failed = failed || d.callBLAS(f, args...) != 0 }
	set := func(f blasFunction, of, attribute uintptr, value, bytes int) {
		b.number = uint64(value)
		do(f, of, attribute, uintptr(unsafe.Pointer(&b.number)), uintptr(bytes))
	}
	layout := func(to *uintptr, typ, rows, cols, ld, stride int) {
		do(blasLayoutCreate, uintptr(unsafe.Pointer(to)), uintptr(typ), uintptr(rows), uintptr(cols), uintptr(ld))
		set(blasLayoutSet, *to, blasBatchCount, p.batch, 4)
		set(blasLayoutSet, *to, blasBatchStride, stride, 8)
	}
	typ := blasBFloat16
	if p.float {
		typ = blasFloat32
	}
	do(blasDescCreate, uintptr(unsafe.Pointer(&q.desc)), blasCompute32, blasFloat32)
	set(blasDescSet, q.desc, blasTransA, int(flag(p.kind == nt)), 4)
	set(blasDescSet, q.desc, blasTransB, int(flag(p.kind == tn)), 4)
	if p.kind == nt {
		layout(&q.first, blasBFloat16, p.k, p.n, p.ldb, p.strideB)
	} else {
		layout(&q.first, blasBFloat16, p.n, p.k, p.ldb, p.strideB)
	}
	if p.kind == tn {
		layout(&q.second, blasBFloat16, p.m, p.k, p.lda, p.strideA)
	} else {
		layout(&q.second, blasBFloat16, p.k, p.m, p.lda, p.strideA)
	}
	layout(&q.result, typ, p.n, p.m, p.ldc, p.strideC)
	b.count, b.preference = 0, 0
	do(blasPreferenceCreate, uintptr(unsafe.Pointer(&b.preference)))
	set(blasPreferenceSet, b.preference, blasMostWorkspace, blasWorkspace, 8)
	set(blasPreferenceSet, b.preference, blasReductions, blasReductionsInside, 4)
	for i := range uintptr(4) {
		set(blasPreferenceSet, b.preference, blasAlignA+i, 16, 4)
	}
	do(blasHeuristic, b.handle, q.desc, q.first, q.second, q.result, q.result, b.preference, 1,
		uintptr(unsafe.Pointer(&q.found)), uintptr(unsafe.Pointer(&b.count)))
	if d.counting {
		b.count = 1
	}
	if b.preference != 0 {
		d.callBLAS(blasPreferenceDestroy, b.preference)
	}
	if failed || b.count == 0 || q.found.state != 0 {
		d.closePlan(q)
		q = nil
	}
	b.plans[p] = q
	return q
}

// product computes a product with the library.
func (d *Device) product(p product) {
	q, b := d.plan(p), d.blas
	beta := &b.zero
	if p.add {
		beta = &b.one
	}
	workspace, ok := b.workspaces[d.stream]
	if !ok { // the first run of what is recorded
		workspace = d.malloc(blasWorkspace)
		b.workspaces[d.stream] = workspace
	}
	if d.err != nil {
		return
	}
	d.last = "cublasLtMatmul"
	d.markProfile()
	if r := d.callBLAS(blasMatmul, b.handle, q.desc, uintptr(unsafe.Pointer(&b.one)), p.b, q.first, p.a, q.second, uintptr(unsafe.Pointer(beta)),
		p.c, q.result, p.c, q.result, uintptr(unsafe.Pointer(&q.found.algorithm)), workspace, blasWorkspace, d.stream); r != 0 {
		d.failLibrary(r)
	}
	d.markProfile()
	if d.careful && !d.capturing {
		d.sync()
	}
}

// failLibrary keeps the first error: that of a kernel before, which the library
// does not tell from its own, or of the library.
func (d *Device) failLibrary(status int) {
	if !d.capturing {
		d.sync()
	}
	if d.err == nil {
		d.err = &Error{Call: "cublasLtMatmul", Device: d.name(), Name: "cuBLAS status", Code: status,
			Hint: "set SPINNET_CUDA_CUBLAS=0 to do without the library"}
	}
}
