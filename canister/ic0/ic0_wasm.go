package ic0

import "unsafe"

//go:wasmimport ic0 msg_arg_data_size
func msgArgDataSize() uint32

//go:wasmimport ic0 msg_arg_data_copy
func msgArgDataCopy(dst unsafe.Pointer, offset, size uint32)

//go:wasmimport ic0 msg_caller_size
func msgCallerSize() uint32

//go:wasmimport ic0 msg_caller_copy
func msgCallerCopy(dst unsafe.Pointer, offset, size uint32)

//go:wasmimport ic0 msg_reply_data_append
func msgReplyDataAppend(src unsafe.Pointer, size uint32)

//go:wasmimport ic0 msg_reply
func msgReply()

//go:wasmimport ic0 msg_reject
func msgReject(src unsafe.Pointer, size uint32)

//go:wasmimport ic0 msg_reject_code
func msgRejectCode() uint32

//go:wasmimport ic0 msg_reject_msg_size
func msgRejectMsgSize() uint32

//go:wasmimport ic0 msg_reject_msg_copy
func msgRejectMsgCopy(dst unsafe.Pointer, offset, size uint32)

//go:wasmimport ic0 is_controller
func isController(src unsafe.Pointer, size uint32) uint32

//go:wasmimport ic0 time
func now() uint64

//go:wasmimport ic0 performance_counter
func performanceCounter(kind uint32) uint64

//go:wasmimport ic0 debug_print
func debugPrint(src unsafe.Pointer, size uint32)

//go:wasmimport ic0 trap
func trap(src unsafe.Pointer, size uint32)

//go:wasmimport ic0 stable64_size
func stableSize() uint64

//go:wasmimport ic0 stable64_grow
func stableGrow(pages uint64) uint64

//go:wasmimport ic0 stable64_read
func stableRead(dst, offset, size uint64)

//go:wasmimport ic0 stable64_write
func stableWrite(offset, src, size uint64)

//go:wasmimport ic0 call_new
func callNew(callee unsafe.Pointer, calleeSize uint32, name unsafe.Pointer, nameSize uint32, replyFun, replyEnv, rejectFun, rejectEnv uint32)

//go:wasmimport ic0 call_data_append
func callDataAppend(src unsafe.Pointer, size uint32)

//go:wasmimport ic0 call_perform
func callPerform() uint32

// fetch reads bytes that the system copies.
func fetch(size uint32, from func(dst unsafe.Pointer, offset, size uint32)) []byte {
	if size == 0 {
		return nil
	}
	b := make([]byte, size)
	from(unsafe.Pointer(&b[0]), 0, size)
	return b
}

// first is where bytes begin; some functions are given none.
func first(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// Arg is the argument of the message, or what a call answered.
func Arg() []byte { return fetch(msgArgDataSize(), msgArgDataCopy) }

// Caller is the principal of the message's sender.
func Caller() []byte { return fetch(msgCallerSize(), msgCallerCopy) }

// Reply answers the message.
func Reply(data []byte) {
	msgReplyDataAppend(first(data), uint32(len(data)))
	msgReply()
}

// Reject refuses the message. Changes of the canister's state stay.
func Reject(message string) {
	msgReject(unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

// Trap ends the message and undoes all changes of the canister's state.
func Trap(message string) {
	trap(unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

// Print writes to the canister's log.
func Print(message string) {
	debugPrint(unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

// IsController reports whether a principal is among the canister's controllers.
func IsController(principal []byte) bool {
	return isController(first(principal), uint32(len(principal))) != 0
}

// Time is the time of the message, in nanoseconds since 1970.
func Time() uint64 { return now() }

// Counter is the number of instructions so far, of a kind.
func Counter(kind int) uint64 { return performanceCounter(uint32(kind)) }

// StableSize is the size of the stable memory, in pages.
func StableSize() uint64 { return stableSize() }

// StableGrow adds pages to the stable memory; false when it may not grow so
// far.
func StableGrow(pages uint64) bool { return stableGrow(pages) != 1<<64-1 }

// StableRead fills dst from stable memory. It traps beyond its end.
func StableRead(dst []byte, offset uint64) {
	stableRead(uint64(uintptr(first(dst))), offset, uint64(len(dst)))
}

// StableWrite puts src into stable memory. It traps beyond its end.
func StableWrite(offset uint64, src []byte) {
	stableWrite(offset, uint64(uintptr(first(src))), uint64(len(src)))
}

// callbackPC is the code address of ic0_callback, of which the upper bits are
// its place in the module's table of functions.
func callbackPC() uint64

// Call calls a method of another canister. done is called in a later message,
// the answer, with the reply or an error: a *RejectError. That a call cannot
// be made is told by the result, and then done is never called.
func Call(callee []byte, method string, arg []byte, done func(reply []byte, err error)) error {
	fun, id := uint32(callbackPC()>>16), wait(done)
	callNew(first(callee), uint32(len(callee)), unsafe.Pointer(unsafe.StringData(method)), uint32(len(method)), fun, uint32(id)<<1, fun, uint32(id)<<1|1)
	callDataAppend(first(arg), uint32(len(arg)))
	if code := callPerform(); code != 0 {
		delete(waiting, id)
		return &RejectError{Message: "the call of " + method + " could not be made"}
	}
	return nil
}

// answered is what the system calls with the answer to a call.
//
//go:wasmexport ic0_callback
func answered(env int32) {
	id := env >> 1
	if env&1 == 0 {
		answer(id, Arg(), nil)
		return
	}
	answer(id, nil, &RejectError{int(msgRejectCode()), string(fetch(msgRejectMsgSize(), msgRejectMsgCopy))})
}
