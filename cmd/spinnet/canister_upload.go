package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"spinnet/canister/agent"
)

// uploadChunk is how many bytes of a model a message carries: ICP takes
// messages of 2 MiB.
const uploadChunk = 1_900_000

func newCanisterUploadCmd() *cobra.Command {
	var f struct {
		networkFlags
		modelFlags
		kvCache, identity, project string
	}
	cmd := &cobra.Command{
		Use:   "upload CANISTER MODEL",
		Short: "Bring a model to a canister that is deployed",
		Long: `Upload brings a model, in pieces, to the stable memory of a canister made by
spinnet canister build, which then writes with it: for models too large for a
module (up to 1 GB), or to exchange a model without an upgrade. Only the
canister's controllers may; --identity is the key of one. An upload that was
interrupted goes on where it stopped.`,
		Example: `  spinnet canister build --no-model -o build && spinnet canister deploy build
  icp identity export me > me.pem
  spinnet canister upload spinnet scholar.spinnet --project build --identity me.pem`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if f.kvCache != "float" && f.kvCache != "int8" {
				return usagef("--kv-cache %s: want float or int8", f.kvCache)
			}
			id, err := canisterNamed(args[0], f.project, f.network)
			if err != nil {
				return err
			}
			c, err := f.client(ctx)
			if err != nil {
				return err
			}
			if err := signAs(c, f.identity); err != nil {
				return err
			}
			image, _, err := canisterImage(args[1], f.kvCache, &f.modelFlags)
			if err != nil {
				return err
			}
			return uploadModel(ctx, c, id, image, cmd.ErrOrStderr())
		},
	}
	f.networkFlags.add(cmd)
	f.modelFlags.add(cmd)
	cmd.Flags().StringVar(&f.kvCache, "kv-cache", "float", "keep keys and values as float or, with fewer instructions, int8")
	cmd.Flags().StringVar(&f.identity, "identity", "", "PEM file with a controller's private key: secp256k1 (as of icp), Ed25519 or P-256")
	cmd.Flags().StringVar(&f.project, "project", ".", "folder that icp deployed from, for names of canisters")
	return cmd
}

// uploadModel brings an image to a canister and makes it the model in use.
func uploadModel(ctx context.Context, c *agent.Client, id agent.Principal, image []byte, log io.Writer) error {
	sum := sha256.Sum256(image)
	status, err := callCanister(ctx, c, id, "upload_status", []byte("DIDL\x00\x00"), true)
	if err != nil {
		return err
	}
	at := uint64(0)
	if r, ok := oneOf[agent.Record](status); ok && r.Get("state") == "partial" && r.Get("size") == uint64(len(image)) {
		if hash, _ := r.Get("sha256").([]byte); bytes.Equal(hash, sum[:]) {
			at, _ = r.Get("received").(uint64)
			fmt.Fprintf(log, "going on at %s\n", sizeOf(int(at)))
		}
	}
	if at == 0 {
		if _, err := uploadCall(ctx, c, id, "upload_begin", agent.Record{agent.F("size", uint64(len(image))), agent.F("sha256", sum[:])}); err != nil {
			return err
		}
	}
	start, from := time.Now(), at
	for at < uint64(len(image)) {
		chunk := image[at:min(uint64(len(image)), at+uploadChunk)]
		got, err := uploadCall(ctx, c, id, "upload_chunk", agent.Record{agent.F("offset", at), agent.F("data", chunk)})
		if err != nil {
			return err
		}
		next, ok := got.(uint64)
		if !ok || next <= at || next > uint64(len(image)) {
			return fmt.Errorf("canister %v: %v bytes have come, after a chunk up to byte %d", id, got, at+uint64(len(chunk)))
		}
		at = next
		speed := float64(at-from) / time.Since(start).Seconds()
		fmt.Fprintf(log, "%s of %s, %s/s\n", sizeOf(int(at)), sizeOf(len(image)), sizeOf(int(speed)))
	}
	if _, err := uploadCall(ctx, c, id, "upload_commit"); err != nil {
		return err
	}
	_, err = fmt.Fprintf(log, "canister %v writes with the model, sha256 %x\n", id, sum)
	return err
}

// uploadCall makes an update call that gives ok or err, and gives the value of
// ok.
func uploadCall(ctx context.Context, c *agent.Client, id agent.Principal, method string, args ...any) (any, error) {
	arg, err := agent.EncodeArgs(args...)
	if err != nil {
		return nil, err
	}
	reply, err := callCanister(ctx, c, id, method, arg, false)
	if err != nil {
		return nil, err
	}
	v, ok := oneOf[agent.Variant](reply)
	switch {
	case ok && v.Is("ok"):
		return v.Value, nil
	case ok && v.Is("err"):
		return nil, fmt.Errorf("%s: %v", method, v.Value)
	}
	return nil, errors.New(method + ": the canister's answer is not one of a SpinNet canister")
}

// oneOf gives the only value, if there is one and of that type.
func oneOf[T any](values []any) (v T, ok bool) {
	if len(values) != 1 {
		return v, false
	}
	v, ok = values[0].(T)
	return v, ok
}
