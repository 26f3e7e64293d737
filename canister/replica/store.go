package replica

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"spinnet/canister/agent"
	"spinnet/canister/host"
	"spinnet/canister/module"
)

// store is the folder that keeps a replica:
//
//	replica.json       keys and the next canister's number
//	ID.canister        one canister: JSON, globals, pages, SHA-256
//	HASH.module        a module as installed
//	lock               held by the replica that runs
//
// Each file is written beside its place and renamed, so that a reader finds
// the old one or the new one.
type store struct {
	dir  string
	lock *os.File

	// writing is held from the look at what is to be written until it is in
	// its place: files have one name while they are written, and the newer
	// index must be the last.
	writing sync.Mutex
}

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("replica: %w", err)
	}
	held, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	return &store{dir: dir, lock: held}, nil
}

// write makes a file of what f writes.
func (s *store) write(name string, f func(io.Writer) error) error {
	tmp := filepath.Join(s.dir, name+".tmp")
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	w := bufio.NewWriterSize(file, 1<<20)
	err = f(w)
	for _, step := range []func() error{w.Flush, file.Sync} {
		if err == nil {
			err = step()
		}
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(tmp, filepath.Join(s.dir, name))
	}
	if err == nil {
		err = s.syncDir()
	}
	if err != nil {
		return fmt.Errorf("replica: %s: %w", name, errors.Join(err, os.RemoveAll(tmp)))
	}
	return nil
}

// syncDir makes renames last.
func (s *store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrInvalid) || errors.Is(err, fs.ErrPermission) {
		err = nil // file systems that cannot
	}
	return errors.Join(err, d.Close())
}

// index is replica.json.
type index struct {
	Format    int      `json:"format"`
	SubnetKey string   `json:"subnet_key"`
	NodeKey   string   `json:"node_key"`
	Next      uint64   `json:"next_canister"`
	Canisters []string `json:"canisters"`
}

// header is the JSON at the head of a canister's file.
type header struct {
	Controllers []string `json:"controllers"`
	Status      status   `json:"status"`
	Version     uint64   `json:"version"`
	Module      string   `json:"module,omitempty"` // hash
	Certified   []byte   `json:"certified,omitempty"`
	Timer       uint64   `json:"timer,omitempty"`
	Globals     []uint64 `json:"globals,omitempty"`
	Heap        int      `json:"heap_pages"`
	Stable      int      `json:"stable_pages"`
}

const (
	storeFormat   = 1
	canisterMagic = "SPNCAN01"
	maxHeader     = 1 << 20 // bytes
	noPage        = ^uint32(0)
)

// saveIndex writes replica.json.
func (r *Replica) saveIndex() error {
	if r.store == nil {
		return nil
	}
	r.store.writing.Lock()
	defer r.store.writing.Unlock()
	return r.writeIndex()
}

// writeIndex is saveIndex while store.writing is held.
func (r *Replica) writeIndex() error {
	r.mu.Lock()
	in := index{Format: storeFormat, SubnetKey: hex.EncodeToString(r.key.Bytes()), NodeKey: hex.EncodeToString(r.nodeKey.Seed()), Next: r.nextID}
	var list []*canister
	for _, c := range r.canisters {
		in.Canisters = append(in.Canisters, c.id.String())
		list = append(list, c)
	}
	r.mu.Unlock()
	slices.Sort(in.Canisters)
	for _, c := range list { // a canister in the index has a file
		if _, err := os.Stat(filepath.Join(r.store.dir, c.id.String()+".canister")); errors.Is(err, fs.ErrNotExist) {
			if err := r.writeCanister(c); err != nil {
				return err
			}
		}
	}
	return r.store.write("replica.json", func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(in)
	})
}

// saveNow writes a canister's last state.
func (r *Replica) saveNow(c *canister) error {
	if r.store == nil {
		return nil
	}
	r.store.writing.Lock()
	defer r.store.writing.Unlock()
	r.mu.Lock()
	exists := r.canisters[string(c.id)] == c
	delete(r.dirty, c)
	r.mu.Unlock()
	if !exists { // deleted since it was changed
		return nil
	}
	err := r.writeCanister(c)
	if err != nil { // the saver tries again
		r.mu.Lock()
		r.dirty[c] = true
		r.mu.Unlock()
	}
	return err
}

// writeCanister writes a canister's last state while store.writing is held.
func (r *Replica) writeCanister(c *canister) error {
	st := c.current.Load()
	h := header{Status: st.status, Version: st.version, Certified: st.Certified, Timer: st.Timer, Globals: st.Globals, Heap: len(st.Heap), Stable: len(st.Stable)}
	for _, p := range st.controllers {
		h.Controllers = append(h.Controllers, p.String())
	}
	if st.Program != nil {
		h.Module = hex.EncodeToString(st.Program.Hash[:])
		name := h.Module + ".module"
		if _, err := os.Stat(filepath.Join(r.store.dir, name)); err != nil {
			if err := r.store.write(name, func(w io.Writer) error { _, err := w.Write(st.Program.Wasm); return err }); err != nil {
				return err
			}
		}
	}
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	return r.store.write(c.id.String()+".canister", func(w io.Writer) error {
		sum := sha256.New()
		out := io.MultiWriter(w, sum)
		head := binary.LittleEndian.AppendUint32([]byte(canisterMagic), uint32(len(text)))
		if _, err := out.Write(append(head, text...)); err != nil {
			return err
		}
		for _, pages := range [][]*host.Page{st.Heap, st.Stable} {
			if err := writePages(out, pages); err != nil {
				return err
			}
		}
		_, err := w.Write(sum.Sum(nil))
		return err
	})
}

// writePages writes the pages that are not zero, each behind its number.
func writePages(w io.Writer, pages []*host.Page) error {
	number := make([]byte, 4)
	for i, p := range pages {
		if p.Zero() {
			continue
		}
		binary.LittleEndian.PutUint32(number, uint32(i))
		if _, err := w.Write(number); err != nil {
			return err
		}
		if _, err := w.Write(p[:]); err != nil {
			return err
		}
	}
	binary.LittleEndian.PutUint32(number, noPage)
	_, err := w.Write(number)
	return err
}

func readPages(r io.Reader, n int) ([]*host.Page, error) {
	pages := make([]*host.Page, n)
	number := make([]byte, 4)
	for next := 0; ; {
		if _, err := io.ReadFull(r, number); err != nil {
			return nil, err
		}
		i := binary.LittleEndian.Uint32(number)
		if i == noPage {
			return pages, nil
		}
		if int64(i) < int64(next) || int64(i) >= int64(n) {
			return nil, fmt.Errorf("page %d of %d, out of order", i, n)
		}
		p := new(host.Page)
		if _, err := io.ReadFull(r, p[:]); err != nil {
			return nil, err
		}
		pages[i], next = p, int(i)+1
	}
}

// load fills a replica from the folder; false when it is new.
func (s *store) load(ctx context.Context, r *Replica) (bool, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "replica.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var in index
	if err := json.Unmarshal(text, &in); err != nil {
		return false, fmt.Errorf("replica.json: %w", err)
	}
	if in.Format != storeFormat || in.Next < firstCanister || in.Next > lastCanister || len(in.Canisters) > maxCanisters {
		return false, fmt.Errorf("replica.json: format %d, want %d; or a number that cannot be", in.Format, storeFormat)
	}
	raw, err := hex.DecodeString(in.SubnetKey)
	if err != nil {
		return false, fmt.Errorf("replica.json: subnet key: %w", err)
	}
	key, err := agent.ParseSubnetKey(raw)
	if err != nil {
		return false, fmt.Errorf("replica.json: %w", err)
	}
	seed, err := hex.DecodeString(in.NodeKey)
	if err != nil || len(seed) != ed25519.SeedSize {
		return false, fmt.Errorf("replica.json: the node key is no Ed25519 seed")
	}
	r.setKeys(key, ed25519.NewKeyFromSeed(seed))
	r.nextID = in.Next
	for _, name := range in.Canisters {
		id, err := agent.ParsePrincipal(name)
		if err != nil {
			return false, fmt.Errorf("replica.json: %w", err)
		}
		st, err := s.loadCanister(ctx, name)
		if err != nil {
			return false, fmt.Errorf("%s.canister: %w", name, err)
		}
		c := newCanister(r, id, nil)
		c.current.Store(st)
		r.canisters[string(id)] = c
		c.exec.Lock()
		c.setAlarm(st)
		c.exec.Unlock()
	}
	return true, s.tidy(r)
}

// tidy removes modules that no canister has any more, and what a crash left
// half written.
func (s *store) tidy(r *Replica) error {
	keep := map[string]bool{}
	for _, c := range r.canisters {
		if p := c.current.Load().Program; p != nil {
			keep[hex.EncodeToString(p.Hash[:])+".module"] = true
		}
	}
	for _, pattern := range []string{"*.module", "*.tmp"} {
		found, err := filepath.Glob(filepath.Join(s.dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if keep[filepath.Base(path)] {
				continue
			}
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *store) loadCanister(ctx context.Context, name string) (*state, error) {
	file, err := os.Open(filepath.Join(s.dir, name+".canister"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum := sha256.New()
	whole := bufio.NewReaderSize(file, 1<<20)
	in := io.TeeReader(whole, sum)
	head := make([]byte, len(canisterMagic)+4)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(canisterMagic)]) != canisterMagic {
		return nil, fmt.Errorf("not a canister of this replica's format")
	}
	size := binary.LittleEndian.Uint32(head[len(canisterMagic):])
	if size > maxHeader {
		return nil, fmt.Errorf("a header of %d bytes", size)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(in, text); err != nil {
		return nil, err
	}
	var h header
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, err
	}
	if h.Heap < 0 || h.Heap > host.MaxHeapPages || h.Stable < 0 || h.Stable > host.MaxStablePages || h.Status < running || h.Status > stopped {
		return nil, fmt.Errorf("%d pages of heap, %d of stable memory, status %d: more than can be", h.Heap, h.Stable, h.Status)
	}
	st := &state{status: h.Status, version: h.Version, State: host.State{Certified: h.Certified, Timer: h.Timer, Globals: h.Globals}}
	if st.status == stopping { // what it waited for is gone
		st.status = stopped
	}
	if st.Heap, err = readPages(in, h.Heap); err != nil {
		return nil, fmt.Errorf("heap: %w", err)
	}
	if st.Stable, err = readPages(in, h.Stable); err != nil {
		return nil, fmt.Errorf("stable memory: %w", err)
	}
	if err := checkSum(whole, sum); err != nil {
		return nil, err
	}
	for _, p := range h.Controllers {
		id, err := agent.ParsePrincipal(p)
		if err != nil {
			return nil, err
		}
		st.controllers = append(st.controllers, id)
	}
	return st, s.loadProgram(ctx, st, h.Module)
}

// checkSum compares what was read with the sum at the end of the file.
func checkSum(rest io.Reader, sum hash.Hash) error {
	want, err := io.ReadAll(io.LimitReader(rest, sha256.Size+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(want, sum.Sum(nil)) {
		return fmt.Errorf("the checksum is wrong: the file is damaged")
	}
	return nil
}

// loadProgram compiles the module of a state.
func (s *store) loadProgram(ctx context.Context, st *state, name string) error {
	if name == "" {
		return nil
	}
	if sum, err := hex.DecodeString(name); err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("%q is no module's hash", name)
	}
	wasm, err := os.ReadFile(filepath.Join(s.dir, name+".module"))
	if err != nil {
		return err
	}
	p, err := host.Compile(ctx, wasm, module.ICP)
	if err != nil {
		return err
	}
	if hex.EncodeToString(p.Hash[:]) != name || p.Globals() != len(st.Globals) {
		return errors.Join(fmt.Errorf("%s.module is not what the canister had", name), p.Close(ctx))
	}
	st.Program = p
	return nil
}

// forget removes a canister's file. Its module goes when the replica starts
// again.
func (r *Replica) forget(c *canister) error {
	if r.store == nil {
		return nil
	}
	r.store.writing.Lock()
	defer r.store.writing.Unlock()
	if err := r.writeIndex(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(r.store.dir, c.id.String()+".canister")); err != nil {
		return fmt.Errorf("replica: %w", err)
	}
	return nil
}

// changed notes that a canister is to be saved.
func (r *Replica) changed(c *canister) {
	if r.store == nil {
		return
	}
	r.mu.Lock()
	r.dirty[c] = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Save writes what has changed since it was last written.
func (r *Replica) Save() error {
	r.mu.Lock()
	var list []*canister
	for c := range r.dirty {
		list = append(list, c)
	}
	r.mu.Unlock()
	var errs []error
	for _, c := range list {
		errs = append(errs, r.saveNow(c))
	}
	return errors.Join(errs...)
}

// Close saves and lets go of the folder.
func (r *Replica) Close() error {
	err := r.Save()
	if r.store != nil {
		err = errors.Join(err, r.store.lock.Close())
	}
	return err
}

// saver writes changes, a second after they are made and never for more than
// a tenth of the time.
func (r *Replica) saver(ctx context.Context) {
	rest := time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
		start := time.Now()
		if err := r.Save(); err != nil {
			r.logf("saving: %v; it is tried again", err)
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
		rest = max(time.Second, 10*time.Since(start))
	}
}
