package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/fxamacker/cbor/v2"
)

// Kinds of nodes of a hash tree, as on the wire.
const (
	kindEmpty = iota
	kindFork
	kindLabeled
	kindLeaf
	kindPruned
)

// maxTreeDepth bounds the nesting of a tree that comes from outside.
const maxTreeDepth = 128

// A Tree is a node of a hash tree: labels that lead to values, any part of
// which may be left out and replaced by its hash. It does not change once
// made.
type Tree struct {
	kind        byte
	left, right *Tree  // of a fork; a labeled node has its child on the left
	data        []byte // label, or a leaf's value
	hash        [32]byte
}

// Path is a list of labels from the root.
type Path [][]byte

// separated prefixes a domain separator by its length.
func separated(domain string) []byte { return append([]byte{byte(len(domain))}, domain...) }

// hashOf hashes the parts, joined.
func hashOf(domain string, parts ...[]byte) (sum [32]byte) {
	h := sha256.New()
	h.Write(separated(domain))
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// Empty is the tree without anything.
func Empty() *Tree { return &Tree{kind: kindEmpty, hash: hashOf("ic-hashtree-empty")} }

// Leaf is a value.
func Leaf(value []byte) *Tree {
	return &Tree{kind: kindLeaf, data: value, hash: hashOf("ic-hashtree-leaf", value)}
}

func fork(l, r *Tree) *Tree {
	return &Tree{kind: kindFork, left: l, right: r, hash: hashOf("ic-hashtree-fork", l.hash[:], r.hash[:])}
}

func labeled(label []byte, child *Tree) *Tree {
	return &Tree{kind: kindLabeled, data: label, left: child, hash: hashOf("ic-hashtree-labeled", label, child.hash[:])}
}

func pruned(hash [32]byte) *Tree { return &Tree{kind: kindPruned, hash: hash} }

// Dir is a tree of labels in order.
func Dir(entries map[string]*Tree) *Tree {
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	sort.Strings(names)
	var build func(names []string) *Tree
	build = func(names []string) *Tree {
		switch len(names) {
		case 0:
			return Empty()
		case 1:
			return labeled([]byte(names[0]), entries[names[0]])
		}
		return fork(build(names[:len(names)/2]), build(names[len(names)/2:]))
	}
	return build(names)
}

// Hash is the root hash.
func (t *Tree) Hash() [32]byte { return t.hash }

// labels appends the labeled nodes below t's forks, in order.
func (t *Tree) labels(to []*Tree) []*Tree {
	switch t.kind {
	case kindFork:
		return t.right.labels(t.left.labels(to))
	case kindLabeled:
		return append(to, t)
	}
	return to
}

// Witness prunes what the paths do not need. A path that leads nowhere keeps
// the labels around the place where it would be, which proves its absence.
func (t *Tree) Witness(paths []Path) *Tree {
	if t.kind != kindFork && t.kind != kindLabeled {
		return t
	}
	for _, p := range paths {
		if len(p) == 0 {
			return t
		}
	}
	nodes := t.labels(nil)
	below := map[*Tree][]Path{} // kept labels, and the paths that go on from them
	for _, p := range paths {
		i, found := slices.BinarySearchFunc(nodes, p[0], func(n *Tree, label []byte) int { return bytes.Compare(n.data, label) })
		if found {
			below[nodes[i]] = append(below[nodes[i]], p[1:])
			continue
		}
		for j := max(i-1, 0); j < min(i+1, len(nodes)); j++ {
			if _, kept := below[nodes[j]]; !kept {
				below[nodes[j]] = nil // shown, without what is below
			}
		}
	}
	var build func(t *Tree) *Tree
	build = func(t *Tree) *Tree {
		switch t.kind {
		case kindFork:
			l, r := build(t.left), build(t.right)
			if l.kind == kindPruned && r.kind == kindPruned {
				return pruned(t.hash)
			}
			return fork(l, r)
		case kindLabeled:
			on, keep := below[t]
			if !keep {
				return pruned(t.hash)
			}
			if len(on) == 0 {
				return labeled(t.data, pruned(t.left.hash))
			}
			return labeled(t.data, t.left.Witness(on))
		}
		return t
	}
	return build(t)
}

// ErrPruned says that a tree leaves out what was looked up.
var ErrPruned = errors.New("agent: the certificate leaves this path out")

// child finds a label: the tree below it, nil when it is proven absent, or
// ErrPruned.
func (t *Tree) child(label []byte) (*Tree, error) {
	hidden := false
	var find func(t *Tree) *Tree
	find = func(t *Tree) *Tree {
		switch t.kind {
		case kindFork:
			// A pruned part hides the label unless the labels around it show
			// that it would be elsewhere.
			if l := find(t.left); l != nil {
				return l
			}
			return find(t.right)
		case kindLabeled:
			if bytes.Equal(t.data, label) {
				return t.left
			}
		}
		return nil
	}
	if got := find(t); got != nil {
		return got, nil
	}
	// Walk in order: the label lies between the last smaller and the first
	// larger one; a pruned part between those two may hold it.
	var walk func(t *Tree) (stop bool)
	walk = func(t *Tree) bool {
		switch t.kind {
		case kindFork:
			return walk(t.left) || walk(t.right)
		case kindLabeled:
			if bytes.Compare(t.data, label) > 0 {
				return true
			}
			hidden = false
		case kindPruned:
			hidden = true
		}
		return false
	}
	walk(t)
	if hidden {
		return nil, ErrPruned
	}
	return nil, nil
}

// At gives the tree below a path: nil when it is proven absent, ErrPruned
// when the tree does not tell.
func (t *Tree) At(path ...[]byte) (*Tree, error) {
	for _, label := range path {
		next, err := t.child(label)
		if next == nil || err != nil {
			return nil, err
		}
		if next.kind == kindPruned {
			return next, nil
		}
		t = next
	}
	return t, nil
}

// Value gives a leaf's value: nil when there is none.
func (t *Tree) Value(path ...[]byte) ([]byte, error) {
	at, err := t.At(path...)
	switch {
	case err != nil || at == nil:
		return nil, err
	case at.kind == kindPruned:
		return nil, ErrPruned
	case at.kind != kindLeaf:
		return nil, nil
	}
	return at.data, nil
}

// Children gives the labels at the root of t that it shows.
func (t *Tree) Children() [][]byte {
	var labels [][]byte
	for _, n := range t.labels(nil) {
		labels = append(labels, n.data)
	}
	return labels
}

// MarshalCBOR writes the tree as nested arrays, each with its kind first.
func (t *Tree) MarshalCBOR() ([]byte, error) {
	return cbor.Marshal(t.wire())
}

func (t *Tree) wire() any {
	switch t.kind {
	case kindFork:
		return []any{kindFork, t.left.wire(), t.right.wire()}
	case kindLabeled:
		return []any{kindLabeled, t.data, t.left.wire()}
	case kindLeaf:
		return []any{kindLeaf, t.data}
	case kindPruned:
		return []any{kindPruned, t.hash[:]}
	}
	return []any{kindEmpty}
}

// UnmarshalCBOR reads a tree from outside.
func (t *Tree) UnmarshalCBOR(data []byte) error {
	var v any
	if err := Decode(data, &v); err != nil {
		return err
	}
	made, err := treeOf(v, maxTreeDepth)
	if err != nil {
		return err
	}
	*t = *made
	return nil
}

func treeOf(v any, depth int) (*Tree, error) {
	node, _ := v.([]any)
	if len(node) == 0 || depth == 0 {
		return nil, fmt.Errorf("agent: hash tree: a node is no array, or nested too deep")
	}
	kind, _ := node[0].(uint64)
	if want := []int{1, 3, 3, 2, 2}; kind >= uint64(len(want)) || len(node) != want[kind] {
		return nil, fmt.Errorf("agent: hash tree: node of kind %v with %d parts", node[0], len(node))
	}
	if kind == kindEmpty {
		return Empty(), nil
	}
	if kind == kindFork {
		l, err := treeOf(node[1], depth-1)
		if err != nil {
			return nil, err
		}
		r, err := treeOf(node[2], depth-1)
		if err != nil {
			return nil, err
		}
		return fork(l, r), nil
	}
	data, ok := node[1].([]byte)
	if !ok {
		return nil, fmt.Errorf("agent: hash tree: node of kind %d without bytes", kind)
	}
	switch kind {
	case kindLabeled:
		child, err := treeOf(node[2], depth-1)
		if err != nil {
			return nil, err
		}
		return labeled(data, child), nil
	case kindLeaf:
		return Leaf(data), nil
	}
	if len(data) != 32 {
		return nil, fmt.Errorf("agent: hash tree: a hash of %d bytes, want 32", len(data))
	}
	return pruned([32]byte(data)), nil
}
