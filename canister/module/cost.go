package module

// Costs is what each instruction costs, by its Op.
type Costs [opCount]uint16

// ICP is the Internet Computer's table for modules of 32-bit memory:
// instruction_to_cost in rs/embedders/src/wasm_utils/instrumentation.rs of
// github.com/dfinity/ic. Bulk memory instructions cost a further instruction a
// byte (or table element); see Instrument.
var ICP = newICP()

func newICP() *Costs {
	var c Costs
	for i := range c {
		c[i] = 1
	}
	set := func(cost uint16, ops ...Op) {
		for _, op := range ops {
			c[op] = cost
		}
	}
	span := func(cost uint16, first, last Op) {
		for op := first; op <= last; op++ {
			c[op] = cost
		}
	}
	set(0, opBlock, opLoop, opElse, opEnd)
	set(2, opIf, opBr, opBrIf, opBrTable, opGlobalGet, opGlobalSet)
	set(5, opCall, opTableGet, opTableSet, opRefIsNull)
	set(10, opCallIndirect)
	set(3, opReturnCall)
	set(60, opReturnCallIndirect)
	set(130, opRefFunc)
	set(20, opMemorySize)
	set(300, opMemoryGrow, opTableGrow, opDataDrop, opElemDrop)
	set(100, opTableSize, opMemoryInit, opMemoryCopy, opMemoryFill, opTableInit, opTableCopy, opTableFill)

	span(3, 0x5b, 0x66)             // comparisons of floats
	span(10, 0x6d, 0x70)            // i32 division, remainder
	span(10, 0x7f, 0x82)            // i64 division, remainder
	span(2, 0x8d, 0x94)             // f32 ceil, floor, trunc, nearest, sqrt, add, sub, mul
	set(5, 0x91)                    // f32.sqrt
	set(3, 0x95)                    // f32.div
	span(18, 0x96, 0x97)            // f32 min, max
	set(2, 0x98)                    // f32.copysign
	span(2, 0x9b, 0xa2)             // f64 ceil … mul
	set(8, 0x9f)                    // f64.sqrt
	set(5, 0xa3)                    // f64.div
	span(18, 0xa4, 0xa5)            // f64 min, max
	set(3, 0xa6)                    // f64.copysign
	span(20, 0xa8, 0xab)            // i32 from floats
	span(20, 0xae, 0xb1)            // i64 from floats
	set(3, 0xb2, 0xb4, 0xb7, 0xb9)  // floats from signed integers
	set(16, 0xb3, 0xb5, 0xb8, 0xba) // floats from unsigned integers
	span(20, misc, misc+7)          // saturating conversions

	v := func(sub Op) Op { return simd + sub }
	set(3, v(13), v(98), v(107), v(108)) // i8x16 shuffle, popcnt, shl, shr_s
	set(2, v(109))                       // i8x16.shr_u
	set(2, v(38), v(40), v(48), v(50), v(58), v(60))
	set(2, v(125))                         // i16x8.extadd_pairwise_i8x16_u
	set(3, v(127))                         // i32x4.extadd_pairwise_i16x8_u
	set(2, v(139), v(140), v(141))         // i16x8 shifts
	set(2, v(157), v(159))                 // i16x8.extmul_high
	set(2, v(171), v(172), v(173), v(181)) // i32x4 shifts, mul
	span(2, v(188), v(191))                // i32x4.extmul
	set(2, v(203), v(205))                 // i64x2 shl, shr_u
	set(3, v(204))                         // i64x2.shr_s
	set(4, v(213))                         // i64x2.mul
	span(2, v(103), v(106))                // f32x4 ceil, floor, trunc, nearest
	set(2, v(116), v(117), v(122), v(148)) // f64x2 ceil, floor, trunc, nearest
	set(2, v(224), v(225), v(228), v(229), v(230))
	set(5, v(227))         // f32x4.sqrt
	set(10, v(231))        // f32x4.div
	set(4, v(232), v(233)) // f32x4 min, max
	set(2, v(236), v(237), v(240), v(241), v(242))
	set(14, v(239))        // f64x2.sqrt
	set(12, v(243))        // f64x2.div
	set(4, v(244))         // f64x2.min
	set(5, v(245))         // f64x2.max
	set(2, v(248), v(252)) // i32x4 from f32x4, f64x2, signed
	set(4, v(249), v(251)) // i32x4 from f32x4, f32x4 from i32x4, unsigned
	set(3, v(253))         // i32x4 from f64x2, unsigned
	return &c
}

// SystemCall is what a call of a function of the host costs beyond the call
// instruction.
type SystemCall struct {
	Fixed   uint64
	PerByte bool // and an instruction for each byte copied
}

// SystemCalls lists the functions of ic0 by name: the overheads of
// rs/embedders/src/wasmtime_embedder/system_api_complexity.rs.
var SystemCalls = map[string]SystemCall{
	"accept_message":            {500, false},
	"call_cycles_add":           {500, false},
	"call_cycles_add128":        {500, false},
	"call_data_append":          {500, true},
	"call_new":                  {1500, false},
	"call_on_cleanup":           {500, false},
	"call_perform":              {5000, false},
	"canister_cycle_balance":    {500, false},
	"canister_cycle_balance128": {500, false},
	"canister_self_copy":        {500, true},
	"canister_self_size":        {500, false},
	"canister_status":           {500, false},
	"canister_version":          {500, false},
	"certified_data_set":        {500, true},
	"cycles_burn128":            {100, false},
	"data_certificate_copy":     {500, true},
	"data_certificate_present":  {500, false},
	"data_certificate_size":     {500, false},
	"debug_print":               {100, true},
	"global_timer_set":          {500, false},
	"is_controller":             {1000, true},
	"msg_arg_data_copy":         {500, true},
	"msg_arg_data_size":         {500, false},
	"msg_caller_copy":           {500, true},
	"msg_caller_size":           {500, false},
	"msg_cycles_accept":         {500, false},
	"msg_cycles_accept128":      {500, false},
	"msg_cycles_available":      {500, false},
	"msg_cycles_available128":   {500, false},
	"msg_cycles_refunded":       {500, false},
	"msg_cycles_refunded128":    {500, false},
	"msg_method_name_copy":      {500, true},
	"msg_method_name_size":      {500, false},
	"msg_reject":                {500, true},
	"msg_reject_code":           {500, false},
	"msg_reject_msg_copy":       {500, true},
	"msg_reject_msg_size":       {500, false},
	"msg_reply":                 {500, false},
	"msg_reply_data_append":     {500, true},
	"performance_counter":       {200, false},
	"stable_grow":               {100, false},
	"stable_read":               {20, true},
	"stable_size":               {20, false},
	"stable_write":              {20, true},
	"stable64_grow":             {100, false},
	"stable64_read":             {20, true},
	"stable64_size":             {20, false},
	"stable64_write":            {20, true},
	"time":                      {500, false},
	"trap":                      {500, true},
}

// What memory and messages cost, a page being 4 KiB.
//
// The counter is not charged for pages of the heap, read or written: replicas
// find out about them by page faults and only limit how many a message may
// touch (rs/embedders/src/wasmtime_embedder/heap_access.rs). That a fault takes
// about as long as 10,000 instructions is for the one to add who plans time.
const (
	PageSize = 4096

	// StablePage is charged for each page of stable memory that a message is
	// the first to write: DEFAULT_DIRTY_PAGE_OVERHEAD of
	// rs/config/src/subnet_config.rs. Reading stable memory costs its bytes.
	StablePage = 1000

	// CompiledInstruction is charged once for each instruction of a module
	// that is installed: DEFAULT_COST_TO_COMPILE_WASM_INSTRUCTION of
	// rs/config/src/embedders.rs.
	CompiledInstruction = 6000

	// Most instructions of a message, of a query and of an installation or
	// upgrade: rs/config/src/subnet_config.rs.
	UpdateLimit  = 40_000_000_000
	QueryLimit   = 5_000_000_000
	InstallLimit = 300_000_000_000
)
