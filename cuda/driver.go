//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// function is one function of the driver.
type function int

const (
	cuInit function = iota
	cuDriverGetVersion
	cuGetErrorName
	cuDeviceGetCount
	cuDeviceGet
	cuDeviceGetName
	cuDeviceTotalMem
	cuDeviceGetAttribute
	cuDevicePrimaryCtxRetain
	cuDevicePrimaryCtxRelease
	cuCtxSetCurrent
	cuMemGetInfo
	cuMemAlloc
	cuMemFree
	cuMemAllocHost
	cuMemFreeHost
	cuMemcpyHtoDAsync
	cuMemcpyDtoHAsync
	cuMemsetD8Async
	cuStreamCreate
	cuStreamDestroy
	cuStreamSynchronize
	cuStreamWaitEvent
	cuStreamBeginCapture
	cuStreamEndCapture
	cuEventCreate
	cuEventDestroy
	cuEventRecord
	cuEventSynchronize
	cuEventElapsedTime
	cuModuleLoadData
	cuModuleUnload
	cuModuleGetFunction
	cuFuncSetAttribute
	cuLaunchKernelEx
	cuGraphInstantiate
	cuGraphLaunch
	cuGraphExecDestroy
	cuGraphDestroy
	cuTensorMapEncodeTiled
	functions // how many there are
)

// symbols are the names in the library, with the version of each that we call.
var symbols = [functions]string{
	cuInit: "cuInit", cuDriverGetVersion: "cuDriverGetVersion", cuGetErrorName: "cuGetErrorName",
	cuDeviceGetCount: "cuDeviceGetCount", cuDeviceGet: "cuDeviceGet", cuDeviceGetName: "cuDeviceGetName",
	cuDeviceTotalMem: "cuDeviceTotalMem_v2", cuDeviceGetAttribute: "cuDeviceGetAttribute",
	cuDevicePrimaryCtxRetain: "cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRelease: "cuDevicePrimaryCtxRelease_v2",
	cuCtxSetCurrent: "cuCtxSetCurrent", cuMemGetInfo: "cuMemGetInfo_v2", cuMemAlloc: "cuMemAlloc_v2", cuMemFree: "cuMemFree_v2",
	cuMemAllocHost: "cuMemAllocHost_v2", cuMemFreeHost: "cuMemFreeHost",
	cuMemcpyHtoDAsync: "cuMemcpyHtoDAsync_v2", cuMemcpyDtoHAsync: "cuMemcpyDtoHAsync_v2",
	cuMemsetD8Async: "cuMemsetD8Async",
	cuStreamCreate:  "cuStreamCreate", cuStreamDestroy: "cuStreamDestroy_v2", cuStreamSynchronize: "cuStreamSynchronize", cuStreamWaitEvent: "cuStreamWaitEvent",
	cuStreamBeginCapture: "cuStreamBeginCapture_v2", cuStreamEndCapture: "cuStreamEndCapture",
	cuEventCreate: "cuEventCreate", cuEventDestroy: "cuEventDestroy_v2", cuEventRecord: "cuEventRecord", cuEventSynchronize: "cuEventSynchronize",
	cuEventElapsedTime: "cuEventElapsedTime",
	cuModuleLoadData:   "cuModuleLoadData", cuModuleUnload: "cuModuleUnload", cuModuleGetFunction: "cuModuleGetFunction",
	cuFuncSetAttribute: "cuFuncSetAttribute", cuLaunchKernelEx: "cuLaunchKernelEx",
	cuGraphInstantiate: "cuGraphInstantiateWithFlags", cuGraphLaunch: "cuGraphLaunch",
	cuGraphExecDestroy: "cuGraphExecDestroy", cuGraphDestroy: "cuGraphDestroy",
	cuTensorMapEncodeTiled: "cuTensorMapEncodeTiled",
}

// Numbers of the driver's interface.
const (
	attributeMajor          = 75
	attributeMinor          = 76
	attributeMultiprocs     = 16
	attributeMostShared     = 97 // of a block that asks for it
	funcMaxDynamicShared    = 8
	funcWideClusters        = 14 // clusters of more than eight blocks
	captureRelaxed          = 2  // other threads may call the driver meanwhile
	streamNonBlocking       = 1
	eventDisableTiming      = 2
	resultOutOfMemory       = 2
	resultStub              = 34
	resultDeviceUnavailable = 46
	resultNoDevice          = 100
	resultMemoryFault       = 214 // beyond repair by its error correction
	resultSystem            = 304
	resultNoBinaryForGPU    = 209
	resultUnsupportedPTX    = 222
	resultFirstFault        = 700 // of a kernel: an illegal address
	resultLastFault         = 719 // any other fault
	resultNotReady          = 802
	resultDriverMismatch    = 803
	resultUnknown           = 999
)

// driver is libcuda.
var driver struct {
	once    sync.Once
	err     error
	version int
	addr    [functions]uintptr
}

// loadDriver opens libcuda, once.
func loadDriver() error {
	driver.once.Do(func() { driver.err = openDriver() })
	return driver.err
}

func openDriver() error {
	library, err := openLibrary(driverNames...)
	if err != nil {
		return fmt.Errorf("%w: %s cannot be opened", ErrNoDriver, driverNames[0])
	}
	return bindDriver(func(name string) uintptr { return symbol(library, name) })
}

// bindDriver finds the driver's functions and starts it.
func bindDriver(find func(name string) uintptr) error {
	for f, name := range symbols {
		if driver.addr[f] = find(name); driver.addr[f] == 0 {
			return fmt.Errorf("cuda: the NVIDIA driver is too old: it has no %s; version %s or newer is needed", name, minDriverName)
		}
	}
	if r := call(cuInit, 0); r != 0 {
		return driverError(cuInit, r)
	}
	out := new(int32)
	if r := call(cuDriverGetVersion, uintptr(unsafe.Pointer(out))); r != 0 {
		return driverError(cuDriverGetVersion, r)
	}
	driver.version = int(*out)
	return nil
}

// driverVersion is the CUDA version of the driver, such as "13.0".
func driverVersion() string {
	return fmt.Sprintf("%d.%d", driver.version/1000, driver.version%1000/10)
}

// call calls a function of the driver and returns its result, 0 for success.
//
//go:uintptrescapes
func call(f function, args ...uintptr) int {
	r, _, _ := purego.SyscallN(driver.addr[f], args...)
	return int(int32(r))
}

func driverError(f function, code int) *Error {
	return &Error{Call: symbols[f], Name: resultName(code), Code: code, Hint: hints[code]}
}

// hints say what results of the driver are likely about.
var hints = map[int]string{
	resultOutOfMemory:       "another program may hold its memory",
	resultStub:              "the library is a stub of NVIDIA's toolkit, not a driver; take its folder out of LD_LIBRARY_PATH",
	resultDeviceUnavailable: "another process has this GPU for itself (its compute mode is exclusive)",
	resultMemoryFault:       "the GPU's memory has a fault; see nvidia-smi",
	resultSystem:            "the system keeps this program from the GPU; see nvidia-smi, and what a container may use",
	resultNoDevice:          "this machine has no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it",
	resultNotReady:          "the GPU is still being set up (see nvidia-smi)",
	resultDriverMismatch:    "the driver was updated under way; restart the machine",
	resultUnknown:           "see whether nvidia-smi works: the driver's kernel modules may not be loaded",
}

// resultName is the driver's name of a result.
func resultName(code int) string {
	out := new(uintptr)
	if driver.addr[cuGetErrorName] == 0 || call(cuGetErrorName, uintptr(code), uintptr(unsafe.Pointer(out))) != 0 || *out == 0 {
		return "unknown error"
	}
	return goString(*out)
}

// pointer is the address as a pointer. The memory is the driver's, not Go's.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// goString copies a string of C.
func goString(addr uintptr) string {
	n := 0
	for *(*byte)(pointer(addr + uintptr(n))) != 0 {
		n++
	}
	return strings.Clone(unsafe.String((*byte)(pointer(addr)), n))
}

// Devices lists the GPUs and says which driver they have, such as
// "580.159.04, CUDA 13.0".
func Devices() (gpus []Info, version string, err error) {
	if err := loadDriver(); err != nil {
		return nil, "", err
	}
	out := new(int32)
	if r := call(cuDeviceGetCount, uintptr(unsafe.Pointer(out))); r != 0 {
		return nil, "", driverError(cuDeviceGetCount, r)
	}
	for i := range int(*out) {
		info, _, err := deviceInfo(i)
		if err != nil {
			return nil, "", err
		}
		info.Unusable = unusable(info)
		gpus = append(gpus, info)
	}
	version = "CUDA " + driverVersion()
	if text, err := os.ReadFile("/proc/driver/nvidia/version"); err == nil { // Linux; libcuda does not say
		if r := driverRelease(string(text)); r != "" {
			version = r + ", " + version
		}
	}
	return gpus, version, nil
}

// driverRelease finds the release in what the kernel module says of itself: the first
// word of numbers and dots. Empty if there is none.
func driverRelease(text string) string {
	for word := range strings.FieldsSeq(text) {
		if strings.Contains(word, ".") && strings.Trim(word, "0123456789.") == "" {
			return word
		}
	}
	return ""
}

// unusable says why we cannot compute on a GPU; empty: we can.
func unusable(i Info) string {
	switch {
	case driver.version < minDriver:
		return fmt.Sprintf("the NVIDIA driver is too old: it is for CUDA %s; version %s or newer (CUDA %d.%d) is needed",
			driverVersion(), minDriverName, minDriver/1000, minDriver%1000/10)
	case i.Major < minMajor:
		return fmt.Sprintf("%s is too old: compute capability %d.0 (Ampere) or newer is needed", i, minMajor)
	}
	return ""
}

// deviceInfo describes GPU number i; handle is the driver's name for it.
func deviceInfo(i int) (info Info, handle int32, err error) {
	type results struct {
		handle, major, minor int32
		memory               uint64
		name                 [256]byte
	}
	o := new(results)
	if r := call(cuDeviceGet, uintptr(unsafe.Pointer(&o.handle)), uintptr(i)); r != 0 {
		return info, 0, driverError(cuDeviceGet, r)
	}
	h := uintptr(o.handle)
	if r := call(cuDeviceGetName, uintptr(unsafe.Pointer(&o.name)), uintptr(len(o.name)), h); r != 0 {
		return info, 0, driverError(cuDeviceGetName, r)
	}
	if r := call(cuDeviceTotalMem, uintptr(unsafe.Pointer(&o.memory)), h); r != 0 {
		return info, 0, driverError(cuDeviceTotalMem, r)
	}
	for attribute, to := range map[uintptr]*int32{attributeMajor: &o.major, attributeMinor: &o.minor} {
		if r := call(cuDeviceGetAttribute, uintptr(unsafe.Pointer(to)), attribute, h); r != 0 {
			return info, 0, driverError(cuDeviceGetAttribute, r)
		}
	}
	name, _, _ := strings.Cut(string(o.name[:]), "\x00")
	return Info{Index: i, Name: name, Memory: o.memory, Major: int(o.major), Minor: int(o.minor)}, o.handle, nil
}
