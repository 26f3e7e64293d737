package interop

import (
	"fmt"

	"spinnet/spinfile"
)

// openSpinnet reads a .spinnet file. Where the system can, the file is mapped
// into memory and stays so until the program ends, because the model's int8
// tensors lie in it: they are read from disk when they are first used and cost
// no memory of their own. Replace such a file by renaming another over it, as
// WriteFile does; a program that uses the model ends when the file is cut
// short under it.
func openSpinnet(path string) (*spinfile.Model, error) {
	data, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("interop: %w", err)
	}
	m, err := spinfile.Decode(data)
	if err != nil {
		unmapFile(data)
		return nil, fmt.Errorf("interop: %s: %w", path, err)
	}
	m.Meta["source"] = path
	return m, nil
}
