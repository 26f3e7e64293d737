package host

// Limits of ICP's interface specification, and of rs/config of
// github.com/dfinity/ic.
const (
	MaxModule      = 100 << 20 // bytes of a module, uncompressed
	MaxPayload     = 2 << 20   // bytes of an argument or a reply
	MaxStablePages = 8 << 30 / PageSize
	MaxHeapPages   = 4 << 30 / PageSize

	maxOutstanding = 500 // calls that one message makes
	maxCertified   = 32  // bytes of certified data
	wasmPage       = 64 << 10
)

// heapPage is charged for each page of the heap that a message changes, after
// the message: the cost of the page fault and of the copy that a node makes of
// it. Messages feel it as part of their limit, not in ic0.performance_counter.
const heapPage = 10_000
