// Command _gen writes zgpt2.bin, the GPT-2 vocabulary that package tokenizer
// embeds, from OpenAI's r50k_base.tiktoken (MIT licence):
//
//	cd tokenizer/_gen && go run . -in r50k_base.tiktoken -out ../zgpt2.bin
//
// The input has a line "base64(bytes) rank" for each of the 50,256 tokens. A
// token longer than a byte is always two earlier tokens put together, so the
// output is: 256 bytes, the byte that is token 0, 1, …; then for each token
// 256 … 50255 the ids of its two halves, little-endian uint16. That is 200,256
// bytes, a quarter of the input, and reading it back is a loop of copies.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"os"
)

const (
	inputSHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
	tokenCount  = 50256
)

func main() {
	log.SetFlags(0)
	in := flag.String("in", "r50k_base.tiktoken", "vocabulary to read")
	out := flag.String("out", "../zgpt2.bin", "file to write")
	flag.Parse()
	if err := generate(*in, *out); err != nil {
		log.Fatal(err)
	}
}

func generate(in, out string) error {
	data, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != inputSHA256 {
		return fmt.Errorf("%s: sha256 is %x, want %s", in, got, inputSHA256)
	}
	var tokens []string
	ids := make(map[string]int)
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		var text string
		var rank int
		if _, err := fmt.Sscanf(s.Text(), "%s %d", &text, &rank); err != nil {
			return fmt.Errorf("%s: line %d: %w", in, len(tokens)+1, err)
		}
		token, err := base64.StdEncoding.DecodeString(text)
		if err != nil || rank != len(tokens) {
			return fmt.Errorf("%s: line %d: %q", in, len(tokens)+1, s.Text())
		}
		ids[string(token)] = rank
		tokens = append(tokens, string(token))
	}
	if len(tokens) != tokenCount || len(ids) != tokenCount {
		return fmt.Errorf("%s: %d tokens, want %d", in, len(tokens), tokenCount)
	}
	var b []byte
	for id, token := range tokens {
		if id < 256 {
			if len(token) != 1 {
				return fmt.Errorf("token %d is not one byte", id)
			}
			b = append(b, token[0])
			continue
		}
		left, right, ok := halves(token, id, ids)
		if !ok {
			return fmt.Errorf("token %d, %q, is not made of two earlier ones", id, token)
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(left))
		b = binary.LittleEndian.AppendUint16(b, uint16(right))
	}
	return os.WriteFile(out, b, 0o666)
}

// halves merges the bytes of a token by the ranks below its own until two
// parts are left.
func halves(token string, rank int, ids map[string]int) (left, right int, ok bool) {
	var parts []string
	for i := range len(token) {
		parts = append(parts, token[i:i+1])
	}
	for len(parts) > 2 {
		best, at := rank, -1
		for i := range len(parts) - 1 {
			if id, ok := ids[parts[i]+parts[i+1]]; ok && id < best {
				best, at = id, i
			}
		}
		if at < 0 {
			return 0, 0, false
		}
		parts[at] += parts[at+1]
		parts = append(parts[:at+1], parts[at+2:]...)
	}
	left, right = ids[parts[0]], ids[parts[1]]
	return left, right, left < rank && right < rank
}
