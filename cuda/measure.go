//go:build !nocuda && (linux || windows) && (amd64 || arm64)

package cuda

import (
	"unsafe"

	"spinnet/tensor"
)

// Measure runs something on a device that is GPU number i in all but that it
// computes nothing and takes no memory, and gives the bytes that would have been
// taken. All scalars and tensors read as zeros.
func Measure(i int, run func(tensor.Device) error) (bytes uint64, gpu Info, err error) {
	g, err := findGPU(i)
	if err != nil {
		return 0, Info{}, err
	}
	out := new(int32)
	if r := call(cuDeviceGetAttribute, uintptr(unsafe.Pointer(out)), attributeMultiprocs, uintptr(g.handle)); r != 0 {
		return 0, Info{}, driverError(cuDeviceGetAttribute, r)
	}
	g.multi, g.counting = int(*out), true
	g.side.stream = 1 // there are two
	d := newDevice(g)
	d.begin()
	if err := run(d); err != nil {
		return 0, g.info, err
	}
	return g.used, g.info, d.err
}

// countList counts the memory of a list, whose chunks may be too many for the
// host.
func (d *Device) countList(ts []*tensor.Tensor) *tensorList {
	l := &tensorList{first: &ts[0], n: len(ts), addrs: d.malloc(8 * len(ts)), sizes: d.malloc(8 * len(ts))}
	for _, t := range ts {
		l.chunks += per(t.Len(), listChunk)
	}
	l.chunk = d.malloc(8 * l.chunks)
	d.lists = append(d.lists, l)
	return l
}
