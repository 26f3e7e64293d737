package main

import (
	"strings"
	"testing"

	"spinnet/canister/candid"
	"spinnet/canister/ic0"
	"spinnet/engine"
)

// TestClassic: the original's way through a text, layer by layer, gives the
// command line's text.
func TestClassic(t *testing.T) {
	m := testModel(t)
	install(t, m)
	for _, prompt := range []string{"Once upon", strings.Repeat("abc ", 50), ""} {
		for _, each := range []uint64{1000, 1e9} {
			slow(each)
			want := native(t, m, prompt, engine.GenerateOptions{MaxTokens: 12})
			if got := callText(t, "start_generation", candid.TextValue(prompt), nat32(12)); !strings.HasPrefix(got, "Started: ") || !strings.HasSuffix(got, " prompt tokens, 12 to generate") {
				t.Errorf("start_generation: %q", got)
			}
			var got string
			for token := range 3 {
				forward := callText(t, "start_forward")
				if want := "Forward: init, seq_len="; token == 0 && !strings.HasPrefix(forward, want) || token > 0 && forward != "Forward: cached, new_len=1" {
					t.Errorf("start_forward: %q", forward)
				}
				for range 1000 {
					reply := callText(t, "process_layers", nat32(2))
					if reply == "Done" {
						break
					}
					if !strings.HasPrefix(reply, "Layer ") && !strings.HasPrefix(reply, "Paused at layer ") {
						t.Fatalf("process_layers: %q", reply)
					}
				}
				got += callText(t, "finish_forward")
			}
			got += callText(t, "generate_next_token")
			for range 100 {
				got += callText(t, "generate_n_tokens", nat32(3))
			}
			if got != want {
				t.Errorf("prompt of %d bytes: got %q, want %q", len(prompt), got, want)
			}
			if got := callText(t, "get_result"); got != prompt+want {
				t.Errorf("get_result: got %q, want %q", got, prompt+want)
			}
			if got := callText(t, "generation_status"); !strings.HasSuffix(got, `,"generated":12,"max":12,"done":true}`) {
				t.Errorf("generation_status: %s", got)
			}
		}
	}
	if n := sessionsOf(t); n != 1 {
		t.Errorf("%d sessions, want the last one", n)
	}
}

// TestClassicOutOfOrder: calls that come at the wrong time are told so, and
// change nothing.
func TestClassicOutOfOrder(t *testing.T) {
	m := testModel(t)
	install(t, m)
	expect := func(name, want string, args ...candid.Value) {
		t.Helper()
		if got := callText(t, name, args...); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	none := "Error: No generation started"
	expect("start_forward", none)
	expect("process_layers", none, nat32(1))
	expect("finish_forward", none)
	expect("generate_next_token", none)
	expect("generate_n_tokens", none, nat32(5))
	expect("get_result", "No generation")
	expect("generation_status", `{"active":false}`)
	expect("start_generation", "Started: 3 prompt tokens, 2 to generate", candid.TextValue("abc"), nat32(2))
	expect("process_layers", "Error: No forward state", nat32(1))
	expect("finish_forward", "Error: No forward state")
	expect("generation_status", `{"tokens":3,"generated":0,"max":2,"done":false}`)
	expect("start_forward", "Forward: init, seq_len=3")
	expect("start_forward", "Forward: init, seq_len=3") // again
	expect("finish_forward", "Error: layers are left; process_layers comes next")
	expect("process_layers", "Layer 0/3", nat32(0))
	for got := ""; got != "Done"; got = callText(t, "process_layers", nat32(1)) {
	}
	expect("process_layers", "Done", nat32(1<<32-1))
	expect("start_forward", "Error: the layers are done; finish_forward comes next")
	first := callText(t, "finish_forward")
	expect("finish_forward", "Error: No forward state")
	second := callText(t, "generate_next_token")
	if want := native(t, m, "abc", engine.GenerateOptions{MaxTokens: 2}); first+second != want {
		t.Errorf("got %q, want %q", first+second, want)
	}
	expect("generate_next_token", "")
	expect("generate_n_tokens", "", nat32(1<<32-1))
	expect("start_forward", "Error: the generation is finished")
	expect("process_layers", "Error: No forward state", nat32(1))
	expect("start_generation", "Error: spinnet: max_tokens is 4294967295, want at most 16384", candid.TextValue("abc"), nat32(1<<32-1))
	expect("generate_full", "Error: spinnet: max_tokens is 4294967295, want at most 16384", candid.TextValue("abc"), nat32(1<<32-1))
	expect("generate_full", "", candid.TextValue("abc"), nat32(0))
}

// TestClassicCallers: every caller has a text of their own.
func TestClassicCallers(t *testing.T) {
	m := testModel(t)
	install(t, m)
	callers := []string{"\x01", "\x02", "\x03"}
	got := make([]string, len(callers))
	as := func(i int) { ic0.System.Caller = []byte(callers[i]) }
	prompts := []string{"one", "two is longer", "three"}
	for i, p := range prompts {
		as(i)
		callText(t, "start_generation", candid.TextValue(p), nat32(20))
	}
	slow(3e9)
	for range 100 {
		for i := range callers {
			as(i)
			got[i] += callText(t, "generate_n_tokens", nat32(3))
		}
	}
	for i, p := range prompts {
		if want := native(t, m, p, engine.GenerateOptions{MaxTokens: 20}); got[i] != want {
			t.Errorf("caller %d: got %q, want %q", i, got[i], want)
		}
	}
}

func TestGetConfig(t *testing.T) {
	install(t, testModel(t))
	want := `{"n_layer":3,"n_head":2,"n_kv_head":2,"n_embd":16,"hidden_dim":24,"block_size":64,"vocab_size":256,"octonion_attention":false,` +
		`"algebra":"octonion","quantizer":"absmean","act_bits":8,"numeric":"int8","tokenizer":"bytes"}`
	if got := callText(t, "get_config"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	install(t, nil)
	if got := callText(t, "get_config"); got != "{}" {
		t.Errorf("without a model: %s", got)
	}
}
