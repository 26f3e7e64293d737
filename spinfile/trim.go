package spinfile

import (
	"errors"
	"slices"
	"strconv"

	"spinnet/arch"
)

// Trim returns a model of a part of the vocabulary: id i of the new one is
// rows[i] of the old. tok is the tokenizer that goes with it. Tensors other
// than embeddings are shared with m.
func (m *Model) Trim(rows []int32, tok TokenizerInfo) (*Model, error) {
	for i, r := range rows {
		if r < 0 || int(r) >= m.Config.VocabSize {
			return nil, errors.New("spinfile: row " + strconv.Itoa(int(r)) + " at " + strconv.Itoa(i) + " is outside the vocabulary of " + strconv.Itoa(m.Config.VocabSize))
		}
	}
	q := *m
	q.Config.VocabSize, q.Tokenizer = len(rows), tok
	q.Tensors = slices.Clone(m.Tensors)
	for i := range q.Tensors {
		t := &q.Tensors[i]
		if t.Kind != arch.Embedding {
			continue
		}
		d := t.Shape[1]
		if t.Packed != nil {
			low, high := t.Planes()
			t.Packed = append(selectRows(low, rows, groupsOf(d)*lowLen), selectRows(high, rows, groupsOf(d)*highLen)...)
		}
		t.Shape = []int{len(rows), d}
		t.Data, t.Int8 = selectRows(t.Data, rows, d), selectRows(t.Int8, rows, d)
		t.Scale, t.Groups = selectRows(t.Scale, rows, 1), selectRows(t.Groups, rows, groupsOf(d))
	}
	return &q, q.Validate()
}

// selectRows copies rows of width d, or gives nil for none.
func selectRows[T any](all []T, rows []int32, d int) []T {
	if all == nil {
		return nil
	}
	some := make([]T, 0, len(rows)*d)
	for _, r := range rows {
		some = append(some, all[int(r)*d:int(r+1)*d]...)
	}
	return some
}
