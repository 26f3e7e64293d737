package spinfile

import "strconv"

// Decode reads a .spinnet file of version 3, 4 or 5. An error is a
// *CorruptError that says where the file is wrong, and no input makes it panic.
// Memory is bounded by the file: a weight takes a byte, and an entropy-coded
// file may hold 64 weights a byte, any other 8. So a model takes at most 64
// times its file plus a constant.
//
// Tensors that the file has as int8, q6 or q4 are not copied: they lie in data, which
// must stay as it is for as long as the model is used. That lets a file
// mapped into memory be used in place.
func Decode(data []byte) (*Model, error) {
	if len(data) < 6 {
		return nil, corrupt("header", len(data), "truncated: a file of "+strconv.Itoa(len(data))+" bytes")
	}
	if string(data[:4]) != magic {
		return nil, corrupt("header", 0, "not a .spinnet file: it begins with "+strconv.QuoteToASCII(string(data[:4]))+", not "+strconv.Quote(magic))
	}
	switch v := le.Uint16(data[4:]); v {
	case 3, 4:
		return decode4(data)
	case 5:
		return decode5(data)
	default:
		return nil, corrupt("header", 4, "version "+strconv.Itoa(int(v))+" is not supported, want 3, 4 or 5")
	}
}
