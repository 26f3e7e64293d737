package spinfile

import "strconv"

// Section is a part of a .spinnet file.
type Section struct {
	Name     string // "config", "tokenizer", "metadata", "header", "freqs_cis" or a parameter's
	Encoding string // of a tensor's values; "" for other parts
	Offset   int64
	Bytes    int64
}

// Sections lists the parts of a .spinnet file and gives its version. It checks
// places, not values or the sections' checksums: Decode does.
func Sections(data []byte) (version int, list []Section, err error) {
	if len(data) < 6 || string(data[:4]) != magic {
		_, err := Decode(data)
		return 0, nil, err
	}
	switch version = int(le.Uint16(data[4:])); version {
	case 3, 4:
		list, err = sections4(data)
	case 5:
		var table []section
		if table, err = readTable(data, false); err != nil {
			return version, nil, err
		}
		for _, s := range table {
			encoding := ""
			if s.kind == sectionTensor {
				encoding = s.encoding.String()
			}
			list = append(list, Section{s.name, encoding, int64(s.offset), int64(s.length)})
		}
	default:
		return version, nil, corrupt("header", 4, "version "+strconv.Itoa(version)+" is not supported, want 3, 4 or 5")
	}
	return version, list, err
}

// sections4 lists the records of a version 3 or 4 file.
func sections4(data []byte) (list []Section, err error) {
	c := cursor{data: data, at: 6, end: len(data), section: "header"}
	c.bytes(int(c.u32()))
	list = append(list, Section{"header", "", 0, int64(c.at)})
	for c.err == nil && !(c.end-c.at >= 4 && string(data[c.at:c.at+4]) == end4) {
		c.section = "records"
		r := c.record4()
		encoding := "float16"
		switch r.marker {
		case 'B':
			encoding = EncodingBitmask.String()
		case 'E':
			encoding = "int8"
		case 'R':
			encoding = "float32"
		}
		list = append(list, Section{r.name, encoding, int64(r.at), int64(c.at - r.at)})
	}
	if c.err != nil {
		return nil, c.err
	}
	return list, nil
}
