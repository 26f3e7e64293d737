package host

import (
	"context"
	"fmt"
	"math"

	"github.com/tetratelabs/wazero/api"

	"spinnet/canister/module"
)

// trapped leaves the canister's code. wazero turns the panic of a function of
// the host into an error of the call.
type trapped struct{}

func (c *Canister) trap(format string, args ...any) {
	c.call.trap = fmt.Sprintf(format, args...)
	panic(trapped{})
}

// pay takes what a function of ic0 costs from the counter.
func (c *Canister) pay(name string, bytes uint64) {
	cost := module.SystemCalls[name]
	n := cost.Fixed
	if cost.PerByte {
		n += bytes
	}
	c.spend(n)
}

func (c *Canister) spend(n uint64) {
	left := int64(c.counter.Get()) - int64(min(n, 1<<40))
	c.counter.Set(uint64(left))
	if left < 0 {
		c.trap("out of instructions")
	}
}

// at gives n bytes of the heap; outside it the canister traps.
func (c *Canister) at(m api.Module, address, n uint64) []byte {
	b, ok := []byte(nil), address <= math.MaxUint32 && n <= math.MaxUint32
	if ok {
		b, ok = m.Memory().Read(uint32(address), uint32(n))
	}
	if !ok {
		c.trap("%d bytes at %d are outside its memory", n, address)
	}
	return b
}

// copyOut is the body of the functions that copy part of a value to the heap.
func (c *Canister) copyOut(m api.Module, name string, from []byte, dst, offset, size uint32) {
	c.pay(name, uint64(size))
	if uint64(offset)+uint64(size) > uint64(len(from)) {
		c.trap("%s: %d bytes from %d of %d", name, size, offset, len(from))
	}
	copy(c.at(m, uint64(dst), uint64(size)), from[offset:offset+size])
}

// imports defines ic0. Functions of other modules do not exist: a module that
// imports them does not load.
func (c *Canister) imports(ctx context.Context) error {
	b := c.runtime.NewHostModuleBuilder("ic0")
	def := func(name string, f any) { b.NewFunctionBuilder().WithFunc(f).Export(name) }
	size := func(name string, of func() int) {
		def(name, func(context.Context) uint32 { c.pay(name, 0); return uint32(of()) })
	}
	data := func(name string, of func() []byte) {
		def(name, func(_ context.Context, m api.Module, dst, offset, n uint32) { c.copyOut(m, name, of(), dst, offset, n) })
	}
	size("msg_arg_data_size", func() int { return len(c.call.Arg) })
	data("msg_arg_data_copy", func() []byte { return c.call.Arg })
	size("msg_caller_size", func() int { return len(c.call.Caller) })
	data("msg_caller_copy", func() []byte { return c.call.Caller })
	size("canister_self_size", func() int { return len(c.ID) })
	data("canister_self_copy", func() []byte { return c.ID })
	size("canister_status", func() int { return 1 })

	def("msg_reply_data_append", func(_ context.Context, m api.Module, src, n uint32) {
		c.pay("msg_reply_data_append", uint64(n))
		c.open("msg_reply_data_append")
		c.call.reply = append(c.call.reply, c.at(m, uint64(src), uint64(n))...)
		if len(c.call.reply) > 3<<20 {
			c.trap("a reply of more than 3 MiB")
		}
	})
	def("msg_reply", func(context.Context) {
		c.pay("msg_reply", 0)
		c.open("msg_reply")
		c.call.answered = true
	})
	def("msg_reject", func(_ context.Context, m api.Module, src, n uint32) {
		c.pay("msg_reject", uint64(n))
		c.open("msg_reject")
		c.call.reply = append([]byte(nil), c.at(m, uint64(src), uint64(n))...)
		c.call.answered, c.call.rejected = true, true
	})
	def("trap", func(_ context.Context, m api.Module, src, n uint32) {
		c.pay("trap", uint64(n))

		c.trap("%s", c.at(m, uint64(src), uint64(n)))
	})
	def("debug_print", func(_ context.Context, m api.Module, src, n uint32) {
		c.pay("debug_print", uint64(n))
		if text := c.at(m, uint64(src), uint64(n)); c.Print != nil {
			c.Print(text)
		}
	})
	def("time", func(context.Context) uint64 {
		c.pay("time", 0)
		return uint64(c.Time().UnixNano())
	})
	def("performance_counter", func(_ context.Context, kind uint32) uint64 {
		c.pay("performance_counter", 0)
		if kind > 1 {
			c.trap("performance_counter: no counter %d", kind)
		}
		n := c.call.Limit - c.counter.Get()
		if kind == 1 {
			n += c.call.spent
		}
		return n
	})
	def("is_controller", func(_ context.Context, m api.Module, src, n uint32) uint32 {
		c.pay("is_controller", uint64(n))
		if p := c.at(m, uint64(src), uint64(n)); c.Controller != nil && c.Controller(p) {
			return 1
		}
		return 0
	})
	def("stable64_size", func(context.Context) uint64 {
		c.pay("stable64_size", 0)
		return uint64(len(c.stable)) >> 16
	})
	def("stable64_grow", func(_ context.Context, pages uint64) uint64 {
		c.pay("stable64_grow", 0)
		old := uint64(len(c.stable))
		if pages > 1<<32 || old+pages<<16 > c.StableLimit {
			return 1<<64 - 1
		}
		c.stable = append(c.stable, make([]byte, pages<<16)...)
		return old >> 16
	})
	def("stable64_read", func(_ context.Context, m api.Module, dst, offset, n uint64) {
		c.pay("stable64_read", n)
		from := c.stableAt(offset, n)
		copy(c.at(m, dst, n), from)
	})
	def("stable64_write", func(_ context.Context, m api.Module, offset, src, n uint64) {
		c.pay("stable64_write", n)
		to := c.stableAt(offset, n)
		if n == 0 {
			return
		}
		for page := offset >> pageBits; page <= (offset+n-1)>>pageBits; page++ {
			if _, ok := c.undo[page]; !ok {
				c.spend(module.StablePage)
				c.undo[page] = nil
				if at := page << pageBits; at < c.oldStable {
					c.undo[page] = append([]byte(nil), c.stable[at:at+module.PageSize]...)
				}
			}
		}
		copy(to, c.at(m, src, n))
	})
	c.calls(def)
	_, err := b.Instantiate(ctx)
	return err
}

// open traps unless the message may still be answered.
func (c *Canister) open(name string) {
	if !c.call.mayReply || c.call.answered {
		c.trap("%s: there is nothing to answer", name)
	}
}

func (c *Canister) stableAt(offset, n uint64) []byte {
	if offset > uint64(len(c.stable)) || n > uint64(len(c.stable))-offset || n > 1<<32-1 {
		c.trap("%d bytes at %d are outside stable memory of %d bytes", n, offset, len(c.stable))
	}
	return c.stable[offset : offset+n]
}
