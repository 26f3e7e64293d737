package spinfile

import "strconv"

// CorruptError says what is wrong with the bytes of a .spinnet file, and
// where: a wrong magic number, a version that is not read, a length that does
// not fit, a checksum that does not agree.
type CorruptError struct {
	Section string // "header", "table", "config", "tokenizer", "metadata" or a tensor's name
	Offset  int64  // in bytes from the start of the file
	Reason  string
}

// Error gives the reason, the section and the byte offset.
func (e *CorruptError) Error() string {
	return "spinfile: " + e.Section + " at byte " + strconv.FormatInt(e.Offset, 10) + ": " + e.Reason
}

// corrupt makes a CorruptError.
func corrupt(section string, offset int, reason string) *CorruptError {
	return &CorruptError{section, int64(offset), reason}
}

// printable gives a name from a file that an error may show.
func printable(name string) string {
	s := strconv.QuoteToASCII(name)
	return s[1 : len(s)-1]
}

// cursor reads a part of a file from front to back. The first failure stays;
// what is read after it is zero.
type cursor struct {
	data    []byte // the whole file
	at, end int
	section string
	err     error
}

// fail keeps the first failure, at the current place.
func (c *cursor) fail(reason string) {
	if c.err == nil {
		c.err = corrupt(c.section, c.at, reason)
	}
}

// bytes gives the next n bytes, or nil.
func (c *cursor) bytes(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > c.end-c.at {
		c.fail("truncated: " + strconv.Itoa(c.end-c.at) + " bytes left, want " + strconv.Itoa(n))
		return nil
	}
	b := c.data[c.at : c.at+n]
	c.at += n
	return b
}

func (c *cursor) u8() int {
	if b := c.bytes(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (c *cursor) u16() int {
	if b := c.bytes(2); b != nil {
		return int(le.Uint16(b))
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.bytes(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.bytes(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}
