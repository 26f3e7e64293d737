package module

import "testing"

// Some of ICP's table, by the instructions' names there: those that a kernel
// lives on, and neighbours whose numbers are easily mistaken.
func TestCosts(t *testing.T) {
	tests := []struct {
		name string
		code []byte
		want uint16
	}{
		{"block", []byte{0x02, 0x40}, 0},
		{"if", []byte{0x04, 0x40}, 2},
		{"call", []byte{0x10, 0}, 5},
		{"call_indirect", []byte{0x11, 0, 0}, 10},
		{"local.get", []byte{0x20, 0}, 1},
		{"global.get", []byte{0x23, 0}, 2},
		{"i32.load", []byte{0x28, 2, 0}, 1},
		{"memory.grow", []byte{0x40, 0}, 300},
		{"i64.eq", []byte{0x51}, 1},
		{"f32.eq", []byte{0x5b}, 3},
		{"f64.ge", []byte{0x66}, 3},
		{"i32.clz", []byte{0x67}, 1},
		{"i32.mul", []byte{0x6c}, 1},
		{"i32.div_s", []byte{0x6d}, 10},
		{"i64.rem_u", []byte{0x82}, 10},
		{"f32.abs", []byte{0x8b}, 1},
		{"f32.nearest", []byte{0x90}, 2},
		{"f32.sqrt", []byte{0x91}, 5},
		{"f32.mul", []byte{0x94}, 2},
		{"f32.div", []byte{0x95}, 3},
		{"f32.max", []byte{0x97}, 18},
		{"f64.sqrt", []byte{0x9f}, 8},
		{"f64.div", []byte{0xa3}, 5},
		{"i32.wrap_i64", []byte{0xa7}, 1},
		{"i32.trunc_f32_s", []byte{0xa8}, 20},
		{"f32.convert_i32_s", []byte{0xb2}, 3},
		{"f32.convert_i32_u", []byte{0xb3}, 16},
		{"f64.promote_f32", []byte{0xbb}, 1},
		{"i32.trunc_sat_f32_s", []byte{0xfc, 0}, 20},
		{"memory.copy", []byte{0xfc, 10, 0, 0}, 100},
		{"v128.load", []byte{0xfd, 0, 4, 0}, 1},
		{"v128.load8x8_s", []byte{0xfd, 1, 3, 0}, 1},
		{"v128.const", append([]byte{0xfd, 12}, make([]byte, 16)...), 1},
		{"i8x16.shuffle", append([]byte{0xfd, 13}, make([]byte, 16)...), 3},
		{"i8x16.swizzle", []byte{0xfd, 14}, 1},
		{"i32x4.extract_lane", []byte{0xfd, 27, 0}, 1},
		{"i8x16.lt_u", []byte{0xfd, 38}, 2},
		{"f32x4.lt", []byte{0xfd, 67}, 1},
		{"v128.bitselect", []byte{0xfd, 82}, 1},
		{"v128.load32_zero", []byte{0xfd, 92, 2, 0}, 1},
		{"i8x16.popcnt", []byte{0xfd, 98}, 3},
		{"f32x4.nearest", []byte{0xfd, 106}, 2},
		{"i8x16.shr_u", []byte{0xfd, 109}, 2},
		{"i16x8.extadd_pairwise_i8x16_s", []byte{0xfd, 124}, 1},
		{"i32x4.extadd_pairwise_i16x8_u", []byte{0xfd, 127}, 3},
		{"i16x8.extend_low_i8x16_s", []byte{0xfd, 0x87, 1}, 1},
		{"i16x8.shr_s", []byte{0xfd, 0x8c, 1}, 2},
		{"i16x8.add", []byte{0xfd, 0x8e, 1}, 1},
		{"i16x8.mul", []byte{0xfd, 0x95, 1}, 1},
		{"i16x8.extmul_low_i8x16_s", []byte{0xfd, 0x9c, 1}, 1},
		{"i16x8.extmul_high_i8x16_s", []byte{0xfd, 0x9d, 1}, 2},
		{"i32x4.add", []byte{0xfd, 0xae, 1}, 1},
		{"i32x4.mul", []byte{0xfd, 0xb5, 1}, 2},
		{"i32x4.dot_i16x8_s", []byte{0xfd, 0xba, 1}, 1},
		{"i32x4.extmul_low_i16x8_s", []byte{0xfd, 0xbc, 1}, 2},
		{"i64x2.shr_s", []byte{0xfd, 0xcc, 1}, 3},
		{"i64x2.mul", []byte{0xfd, 0xd5, 1}, 4},
		{"f32x4.abs", []byte{0xfd, 0xe0, 1}, 2},
		{"f32x4.sqrt", []byte{0xfd, 0xe3, 1}, 5},
		{"f32x4.add", []byte{0xfd, 0xe4, 1}, 2},
		{"f32x4.mul", []byte{0xfd, 0xe6, 1}, 2},
		{"f32x4.div", []byte{0xfd, 0xe7, 1}, 10},
		{"f32x4.max", []byte{0xfd, 0xe9, 1}, 4},
		{"f32x4.pmax", []byte{0xfd, 0xeb, 1}, 1},
		{"f64x2.sqrt", []byte{0xfd, 0xef, 1}, 14},
		{"f64x2.max", []byte{0xfd, 0xf5, 1}, 5},
		{"i32x4.trunc_sat_f32x4_s", []byte{0xfd, 0xf8, 1}, 2},
		{"f32x4.convert_i32x4_s", []byte{0xfd, 0xfa, 1}, 1},
		{"f32x4.convert_i32x4_u", []byte{0xfd, 0xfb, 1}, 4},
	}
	for _, tt := range tests {
		r := reader{b: tt.code}
		in := r.next()
		if r.err != nil || in.end != len(tt.code) {
			t.Errorf("%s: decoded %d of %d bytes (%v)", tt.name, in.end, len(tt.code), r.err)
		} else if got := ICP[in.op]; got != tt.want {
			t.Errorf("%s costs %d, want %d", tt.name, got, tt.want)
		}
	}
}
