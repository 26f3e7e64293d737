package train

import (
	"spinnet/dataset"
	"spinnet/model"
	"spinnet/tensor"
)

// loader fills batches from one split of a dataset.
type loader struct {
	dev    tensor.Device
	tokens *dataset.Tokens
	window []int32 // one row and the token after it
	ids    []int32
	target []int32
	ahead  tensor.Key // of the windows that random filled the batch with
	filled bool
}

func newLoader(dev tensor.Device, tokens *dataset.Tokens, rows, t int) *loader {
	return &loader{dev: dev, tokens: tokens, window: make([]int32, t+1), ids: make([]int32, rows*t), target: make([]int32, rows*t)}
}

// random fills a batch with windows at places drawn from the stream of key.
func (l *loader) random(b *model.Batch, key tensor.Key) error {
	l.filled = false
	r := tensor.MakeRandom(key)
	for row := range b.Rows {
		off := r.Below(l.tokens.Len() - int64(b.T))
		if err := l.tokens.Read(l.window, off); err != nil {
			return err
		}
		copy(l.ids[row*b.T:], l.window[:b.T])
		copy(l.target[row*b.T:(row+1)*b.T], l.window[1:])
	}
	l.write(b)
	l.ahead, l.filled = key, true
	return nil
}

// holds tells whether random with that key was the last to fill a batch that
// this loader alone fills.
func (l *loader) holds(key tensor.Key) bool { return l.filled && l.ahead == key }

// windows is the number of consecutive non-overlapping windows of t tokens
// in which every token but the first is predicted once.
func (l *loader) windows(t int) int64 { return (l.tokens.Len() - 1 + int64(t) - 1) / int64(t) }

// consecutive fills a batch with the windows from number first on. What is
// beyond the last token has target −1. It returns the targets that count.
func (l *loader) consecutive(b *model.Batch, first int64) (count int, err error) {
	l.filled = false
	for row := range b.Rows {
		off := (first + int64(row)) * int64(b.T)
		n := int(min(int64(b.T), l.tokens.Len()-1-off))
		ids, target := l.ids[row*b.T:(row+1)*b.T], l.target[row*b.T:(row+1)*b.T]
		if n > 0 {
			if err := l.tokens.Read(l.window[:n+1], off); err != nil {
				return 0, err
			}
			copy(ids, l.window[:n])
			copy(target, l.window[1:n+1])
		}
		n = max(n, 0)
		clear(ids[n:])
		for i := n; i < b.T; i++ {
			target[i] = -1
		}
		count += n
	}
	l.write(b)
	return count, nil
}

func (l *loader) write(b *model.Batch) {
	l.dev.WriteInts(b.IDs, l.ids)
	l.dev.WriteInts(b.Targets, l.target)
}
