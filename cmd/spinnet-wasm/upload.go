package main

import (
	"errors"
	"strconv"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
)

// maxModel bounds an uploaded model: with the one in use and the caches it
// must fit into a memory of 4 GiB.
const maxModel = 1 << 30

// Hashes of the fields of the arguments.
var (
	hashSize   = candid.Hash("size")
	hashSHA256 = candid.Hash("sha256")
	hashOffset = candid.Hash("offset")
	hashData   = candid.Hash("data")
)

// uploadBegin announces a model of so many bytes with a hash. It takes the
// place of an earlier one in stable memory; the model in use stays in use
// until uploadCommit.
func (c *canister) uploadBegin(r *request) ([]candid.Value, error) {
	var size uint64
	var sum []byte
	err := r.arg.Arg().Record(func(id uint32, v candid.Arg) (bool, error) {
		var err error
		switch id {
		case hashSize:
			size, err = v.Nat64()
		case hashSHA256:
			sum, err = v.Blob()
		default:
			return false, nil
		}
		return true, err
	})
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	switch {
	case size == 0 || size > maxModel:
		return okOr(candid.Value{}, errors.New("spinnet: a model of "+strconv.FormatUint(size, 10)+" bytes, want 1 to "+strconv.Itoa(maxModel)))
	case len(sum) != 32:
		return okOr(candid.Value{}, errors.New("spinnet: a SHA-256 of "+strconv.Itoa(len(sum))+" bytes, want 32"))
	case !reserve(stableModel + size):
		return okOr(candid.Value{}, errors.New("spinnet: the subnet has no stable memory for a model of "+strconv.FormatUint(size, 10)+" bytes"))
	}
	h := header{state: modelPartial, size: size, hash: *newSHA256()}
	copy(h.want[:], sum)
	h.write()
	return okOr(candid.NullValue(), nil)
}

// uploadChunk brings the next bytes of a model and replies how many there are.
// Bytes that have come before are passed over, so a chunk may be sent again.
func (c *canister) uploadChunk(r *request) ([]candid.Value, error) {
	var offset uint64
	var data []byte
	err := r.arg.Arg().Record(func(id uint32, v candid.Arg) (bool, error) {
		var err error
		switch id {
		case hashOffset:
			offset, err = v.Nat64()
		case hashData:
			data, err = v.Blob()
		default:
			return false, nil
		}
		return true, err
	})
	if err == nil {
		err = r.arg.Close()
	}
	if err != nil {
		return nil, err
	}
	h := readHeader()
	switch {
	case h.state != modelPartial:
		return okOr(candid.Value{}, errors.New("spinnet: no upload has begun: upload_begin comes first"))
	case offset > h.received:
		return okOr(candid.Value{}, errors.New("spinnet: a chunk from byte "+strconv.FormatUint(offset, 10)+" on, want "+strconv.FormatUint(h.received, 10)))
	case offset+uint64(len(data)) > h.size:
		return okOr(candid.Value{}, errors.New("spinnet: a chunk up to byte "+strconv.FormatUint(offset+uint64(len(data)), 10)+" of a model of "+strconv.FormatUint(h.size, 10)))
	}
	if known := h.received - offset; known < uint64(len(data)) {
		data = data[known:]
		ic0.StableWrite(stableModel+h.received, data)
		h.hash.write(data)
		h.received += uint64(len(data))
		h.write()
	}
	return okOr(candid.Nat64Value(h.received), nil)
}

// uploadCommit makes the uploaded model the one in use. Sessions of another
// model end.
func (c *canister) uploadCommit(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	h := readHeader()
	switch {
	case h.state != modelPartial:
		return okOr(candid.Value{}, errors.New("spinnet: no upload has begun: upload_begin comes first"))
	case h.received < h.size:
		return okOr(candid.Value{}, errors.New("spinnet: "+strconv.FormatUint(h.received, 10)+" bytes of "+strconv.FormatUint(h.size, 10)+" have come"))
	case h.hash.sum() != h.want:
		return okOr(candid.Value{}, errors.New("spinnet: the SHA-256 of what has come is not the one announced: begin the upload again"))
	}
	if n := h.size * unpackCost; n > r.budget.stop && !uploadIsImage() {
		return okOr(candid.Value{}, errors.New("spinnet: unpacking a .spinnet file of "+strconv.FormatUint(h.size, 10)+" bytes takes more than a message may: upload an image, as spinnet canister upload does"))
	}
	m, err := openUpload(&h)
	if err != nil {
		return okOr(candid.Value{}, err)
	}
	h.state = modelReady
	h.write()
	c.use(m)
	return okOr(candid.NullValue(), nil)
}

// unpackCost is more than a byte of a .spinnet file takes to unpack, in
// instructions: 3,700 were counted with trits five a byte.
const unpackCost = 8000

// uploadIsImage reports whether the model in stable memory is an image.
func uploadIsImage() bool {
	var b [4]byte
	ic0.StableRead(b[:], stableModel)
	return engine.IsImage(b[:])
}

// openUpload makes the model in stable memory ready.
func openUpload(h *header) (*loaded, error) {
	b := make([]byte, h.size)
	ic0.StableRead(b, stableModel)
	return open(b, sourceUpload)
}

// uploadAbort forgets an upload that is not committed.
func (c *canister) uploadAbort(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	h := readHeader()
	if h.state != modelPartial {
		return okOr(candid.Value{}, errors.New("spinnet: there is no upload to abort"))
	}
	h.state = modelNone
	h.write()
	return okOr(candid.NullValue(), nil)
}

// removeModel forgets an uploaded model, and uses that of the module, if there
// is one.
func (c *canister) removeModel(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	if c.model == nil || c.model.source != sourceUpload {
		return okOr(candid.Value{}, errors.New("spinnet: no uploaded model is in use"))
	}
	if h := readHeader(); h.state == modelReady {
		h.state = modelNone
		h.write()
	}
	m, err := openModule()
	if err != nil {
		c.modelErr = err
	}
	c.use(m)
	return okOr(candid.NullValue(), nil)
}

// uploadStatus tells how far an upload is.
func (c *canister) uploadStatus(r *request) ([]candid.Value, error) {
	if err := r.arg.Close(); err != nil {
		return nil, err
	}
	h := readHeader()
	return one(candid.RecordValue(
		candid.Field{Name: "state", Value: candid.TextValue([...]string{"none", "partial", "ready"}[min(h.state, modelReady)])},
		candid.Field{Name: "size", Value: candid.Nat64Value(h.size)},
		candid.Field{Name: "received", Value: candid.Nat64Value(h.received)},
		candid.Field{Name: "sha256", Value: candid.BlobValue(h.want[:])},
	))
}
