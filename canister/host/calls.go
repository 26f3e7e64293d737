package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental/table"
)

// Others answers the calls of a canister to others. An error is a rejection;
// its code is that of a *RejectError, or 4, which means that the callee did it.
type Others func(callee []byte, method string, arg []byte) (reply []byte, err error)

// A RejectError is why a call was not answered. The codes are ICP's: 1 and 2 the
// system's, fatal or not, 3 no such callee, 4 the callee's, 5 it trapped.
type RejectError struct {
	Code    uint32
	Message string
}

// Error gives the message.
func (r *RejectError) Error() string { return r.Message }

// Management answers as the management canister does, whose only method here
// is raw_rand.
func Management(callee []byte, method string, _ []byte) ([]byte, error) {
	if len(callee) > 0 || method != "raw_rand" {
		return nil, &RejectError{3, fmt.Sprintf("there is no method %q of canister %x here", method, callee)}
	}
	random := make([]byte, 32)
	rand.Read(random)
	return append([]byte("DIDL\x01\x6d\x7b\x01\x00\x20"), random...), nil // a blob
}

// outcall is a call to another canister. The functions are indices in the
// module's table.
type outcall struct {
	callee                []byte
	method                string
	arg                   []byte
	replyFunc, replyEnv   uint32
	rejectFunc, rejectEnv uint32
}

// calls defines the functions of ic0 that call others.
func (c *Canister) calls(def func(name string, f any)) {
	def("call_new", func(_ context.Context, m api.Module, callee, calleeSize, name, nameSize, replyFunc, replyEnv, rejectFunc, rejectEnv uint32) {
		c.pay("call_new", 0)
		if c.call.query || !c.call.mayReply {
			c.trap("call_new: only an update may call other canisters here")
		}
		c.call.building = &outcall{
			callee:    append([]byte(nil), c.at(m, uint64(callee), uint64(calleeSize))...),
			method:    string(c.at(m, uint64(name), uint64(nameSize))),
			replyFunc: replyFunc, replyEnv: replyEnv, rejectFunc: rejectFunc, rejectEnv: rejectEnv,
		}
	})
	def("call_data_append", func(_ context.Context, m api.Module, src, n uint32) {
		c.pay("call_data_append", uint64(n))
		if c.call.building == nil {
			c.trap("call_data_append: there is no call")
		}
		if len(c.call.building.arg)+int(n) > 2<<20 {
			c.trap("call_data_append: more than 2 MiB")
		}
		c.call.building.arg = append(c.call.building.arg, c.at(m, uint64(src), uint64(n))...)
	})
	def("call_perform", func(context.Context) uint32 {
		c.pay("call_perform", 0)
		if c.call.building == nil {
			c.trap("call_perform: there is no call")
		}
		if len(c.call.out) >= 500 {
			return 2 // the queue is full
		}
		c.call.out = append(c.call.out, c.call.building)
		c.call.building = nil
		return 0
	})
	def("msg_reject_code", func(context.Context) uint32 {
		c.pay("msg_reject_code", 0)
		return c.call.code
	})
	def("msg_reject_msg_size", func(context.Context) uint32 {
		c.pay("msg_reject_msg_size", 0)
		return uint32(len(c.call.text))
	})
	def("msg_reject_msg_copy", func(_ context.Context, m api.Module, dst, offset, n uint32) {
		c.copyOut(m, "msg_reject_msg_copy", c.call.text, dst, offset, n)
	})
}

// answer makes a call and runs the function that waits for its answer.
func (c *Canister) answer(ctx context.Context, reply *Reply, out *outcall) error {
	others := c.Other
	if others == nil {
		others = Management
	}
	data, err := others(out.callee, out.method, out.arg)
	function, env := out.replyFunc, out.replyEnv
	c.call.Arg, c.call.code, c.call.text = data, 0, nil
	if err != nil {
		function, env = out.rejectFunc, out.rejectEnv
		c.call.Arg, c.call.code, c.call.text = nil, 4, []byte(err.Error())
		if r := (*RejectError)(nil); errors.As(err, &r) {
			c.call.code = r.Code
		}
	}
	f, err := c.tableFunc(function)
	if err != nil {
		return &TrapError{Message: err.Error(), Instructions: reply.Instructions}
	}
	return c.execute(ctx, reply, f, uint64(env))
}

// tableFunc finds a callback, of type (i32) -> (). wazero panics where there is
// none.
func (c *Canister) tableFunc(index uint32) (f api.Function, err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("there is no callback at %d of its table", index)
		}
	}()
	return table.LookupFunction(c.instance, 0, index, []api.ValueType{api.ValueTypeI32}, nil), nil
}
