package pickle

import (
	"encoding/hex"
	"strings"
	"testing"
)

// What Python's pickle.dumps makes of {'vocab_size': 5, 'itos': …, 'stoi': …}
// for the characters of "\nabé😀", by protocol.
const (
	metaProtocol2 = "80027d710028580a000000766f6361625f73697a6571014b05580400000069746f7371027d7103284b0058010000000a71044b0158010000006171054b0258010000006271064b035802000000c3a971074b045804000000f09f9880710875580400000073746f6971097d710a2868044b0068054b0168064b0268074b0368084b0475752e"
	metaProtocol4 = "80049560000000000000007d94288c0a766f6361625f73697a65944b058c0469746f73947d94284b008c010a944b018c0161944b028c0162944b038c02c3a9944b048c04f09f988094758c0473746f69947d942868044b0068054b0168064b0268074b0368084b0475752e"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMeta(t *testing.T) {
	const chars = "\nabé😀"
	for _, data := range [][]byte{unhex(t, metaProtocol2), unhex(t, metaProtocol4), EncodeMeta(chars)} {
		got, err := Meta(data)
		if err != nil || got != chars {
			t.Errorf("got %q, %v, want %q", got, err, chars)
		}
		for n := range data {
			if _, err := Meta(data[:n]); err == nil {
				t.Errorf("no error for the first %d bytes of %x", n, data)
			}
		}
	}
}

func TestMetaRefuses(t *testing.T) {
	for _, c := range []struct{ name, hex, want string }{
		{"code", "8002635f5f6275696c74696e5f5f0a7072696e740a71002e", `names "__builtin__.print"`},
		{"no dict", "80024b052e", "no dict"},
		{"huge string", "800258ffffffff", "bytes wanted, 0 left"},
		{"huge memo index", "80027d72ffffffff2e", `no dict "itos"`},
		{"empty dict", "80027d2e", `no dict "itos"`},
		{"set items without mark", "80024b0175", "lacks its mark"},
	} {
		_, err := Meta(unhex(t, c.hex))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(unhex(f, metaProtocol2))
	f.Add(unhex(f, metaProtocol4))
	f.Fuzz(func(t *testing.T, data []byte) {
		chars, err := Meta(data)
		if err != nil {
			return
		}
		if again, err := Meta(EncodeMeta(chars)); err != nil || again != chars {
			t.Errorf("got %q, %v, want %q", again, err, chars)
		}
	})
}
