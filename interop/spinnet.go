package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"spinnet/spinfile"
)

// openSpinnet reads a .spinnet file and gives its bytes as well. Where the
// system can, the file is mapped into memory and stays so until the program
// ends, because the model's int8 tensors lie in it: they are read from disk
// when they are first used and cost no memory of their own. Replace such a file
// by renaming another over it, as WriteFile does; a program that uses the model
// ends when the file is cut short under it.
func openSpinnet(path string) (m *spinfile.Model, data []byte, err error) {
	if data, err = mapFile(path); err != nil {
		return nil, nil, fmt.Errorf("interop: %w", err)
	}
	if m, err = spinfile.Decode(data); err != nil {
		unmapFile(data)
		return nil, nil, fmt.Errorf("interop: %s: %w", path, err)
	}
	m.Meta["source"] = path
	return m, data, nil
}

// provenance gives what a checkpoint's state.json says of the training, for
// Meta: a hash of the recipe and of the data, and the last losses. What is
// missing there is missing here.
func provenance(path string) map[string]string {
	meta := map[string]string{}
	b, err := os.ReadFile(path)
	if err != nil {
		return meta
	}
	var st struct {
		Config json.RawMessage `json:"config"`
		Data   string          `json:"dataset_hash"`
		Train  json.Number     `json:"train_loss"`
		Val    json.Number     `json:"val_loss"`
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return meta
	}
	var recipe bytes.Buffer
	if len(st.Config) > 0 && json.Compact(&recipe, st.Config) == nil {
		sum := sha256.Sum256(recipe.Bytes())
		meta["config_sha256"] = hex.EncodeToString(sum[:])
	}
	for key, value := range map[string]string{"data_hash": st.Data, "train_loss": st.Train.String(), "val_loss": st.Val.String()} {
		if value != "" {
			meta[key] = value
		}
	}
	return meta
}
