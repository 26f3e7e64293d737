package host

import (
	"slices"

	"spinnet/canister/module"
)

// PageSize is that of a Page, in bytes.
const PageSize = module.PageSize

// Page is 4 KiB of a canister's memory that does not change any more; nil is
// a page of zeros.
type Page [PageSize]byte

var zeros Page

// Zero reports whether the page is all zeros.
func (p *Page) Zero() bool { return p == nil || *p == zeros }

func (p *Page) bytes() []byte {
	if p == nil {
		return zeros[:]
	}
	return p[:]
}

// stable is a message's view of stable memory: the pages before the message,
// and those it wrote.
type stable struct {
	base  []*Page
	pages int // its size
	wrote map[int]*Page
}

func newStable(base []*Page) *stable {
	return &stable{base: base, pages: len(base), wrote: map[int]*Page{}}
}

func (s *stable) size() uint64 { return uint64(s.pages) * PageSize }

// grow adds WebAssembly pages and gives the number of them before, or false
// when there would be too many.
func (s *stable) grow(by uint64) (before uint64, ok bool) {
	before = s.size() / wasmPage
	if by > MaxStablePages || uint64(s.pages)+by*(wasmPage/PageSize) > MaxStablePages {
		return 0, false
	}
	s.pages += int(by) * (wasmPage / PageSize)
	return before, true
}

func (s *stable) at(i int) *Page {
	if p, ok := s.wrote[i]; ok {
		return p
	}
	if i < len(s.base) {
		return s.base[i]
	}
	return nil
}

// read copies from an offset that the caller has checked.
func (s *stable) read(dst []byte, offset uint64) {
	for len(dst) > 0 {
		n := copy(dst, s.at(int(offset / PageSize)).bytes()[offset%PageSize:])
		dst, offset = dst[n:], offset+uint64(n)
	}
}

// fresh counts the pages of a range that a write would be the first to touch.
func (s *stable) fresh(offset, size uint64) uint64 {
	n := uint64(0)
	for i := offset / PageSize; size > 0 && i <= (offset+size-1)/PageSize; i++ {
		if _, ok := s.wrote[int(i)]; !ok {
			n++
		}
	}
	return n
}

// write copies to an offset that the caller has checked.
func (s *stable) write(offset uint64, src []byte) {
	for len(src) > 0 {
		i := int(offset / PageSize)
		p, ok := s.wrote[i]
		if !ok {
			p = new(Page)
			copy(p[:], s.at(i).bytes())
			s.wrote[i] = p
		}
		n := copy(p[offset%PageSize:], src)
		src, offset = src[n:], offset+uint64(n)
	}
}

// commit gives the pages after the message.
func (s *stable) commit() []*Page {
	if len(s.wrote) == 0 && s.pages == len(s.base) {
		return s.base
	}
	pages := slices.Grow(slices.Clone(s.base), s.pages-len(s.base))[:s.pages]
	clear(pages[len(s.base):])
	for i, p := range s.wrote {
		pages[i] = p
	}
	return pages
}
