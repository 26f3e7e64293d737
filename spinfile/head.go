package spinfile

import "strconv"

// AppendHead appends what a model is beside its tensors: configuration,
// tokenizer and metadata, each behind its length in four bytes, in the form of
// their sections in a version 5 file.
func (m *Model) AppendHead(dst []byte) ([]byte, error) {
	tok, err := appendTokenizer(nil, m.Tokenizer)
	if err != nil {
		return dst, err
	}
	meta, err := appendMetadata(nil, m.Meta)
	if err != nil {
		return dst, err
	}
	for _, part := range [][]byte{appendConfig(nil, m.Config), tok, meta} {
		dst = append(le.AppendUint32(dst, uint32(len(part))), part...)
	}
	return dst, nil
}

// DecodeHead reads what AppendHead wrote, which must be all of b: a model
// without tensors, whose configuration and tokenizer are valid. An error is a
// *CorruptError.
func DecodeHead(b []byte) (*Model, error) {
	m := &Model{}
	whole := cursor{data: b, end: len(b), section: "head"}
	for i, name := range sectionNames {
		n := int(whole.u32())
		start := whole.at
		whole.bytes(n)
		if whole.err != nil {
			return nil, whole.err
		}
		c := cursor{data: b, at: start, end: whole.at, section: name}
		switch i {
		case 0:
			m.Config = c.config()
		case 1:
			m.Tokenizer = c.tokenizer(m.Config.VocabSize)
		default:
			m.Meta = c.metadata()
		}
		if c.err == nil && c.at != c.end {
			c.fail(strconv.Itoa(c.end-c.at) + " bytes after the end of the section")
		}
		if c.err != nil {
			return nil, c.err
		}
	}
	if whole.at != whole.end {
		whole.fail(strconv.Itoa(whole.end-whole.at) + " bytes after the end")
		return nil, whole.err
	}
	return m, nil
}
