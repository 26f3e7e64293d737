// Package spinnet is the map of the repository. It holds no code: the program
// is cmd/spinnet, and everything else is one package a folder.
//
// A model, from what it is to what it does:
//
//	arch        configuration, names and shapes of the parameters, counts
//	algebra     multiplication tables: real to sedenion, Walsh, random signs
//	kernel      CPU inner loops: a plain definition beside each assembly
//	tensor      tensors, the CPU device, the tape that differentiates
//	cuda        the GPU device: driver, kernels, graphs
//	model       the transformer that learns, and its initialisation
//	train       recipes, the loop, AdamW, batches, checkpoints
//	spinfile    a finished model in memory, and the .spinnet file
//	engine      the transformer that writes: KV cache, sampler, scoring
//	interop     other programs' model files; Open reads any model
//
// On the Internet Computer and in browsers, from one WebAssembly module:
//
//	cmd/spinnet-wasm    the module: a canister's methods, a page's functions
//	canister/ic0        the system interface of a canister
//	canister/candid     its messages
//	canister/module     read, rewrite, meter and write WebAssembly modules
//	canister/host       run a canister: ic0, instruction counts, rollback
//	canister/agent      ICP's HTTP interface: principals, certificates, Candid; a client
//	canister/replica    a local replica, for the icp command line and @icp-sdk/core
//	canister/link       the committed module; a canister and a page's module from it
//	web                 the page, and the files of a site
//
// Text and records:
//
//	tokenizer   text to ids and back: characters, bytes, GPT-2 BPE
//	dataset     corpora: prepare, open, read tokens
//	pickle      Python's pickles as plain data; nothing in them is run
//	runlog      metrics.jsonl: write, read, cut
//	corpus      the small text that ships      configs   the recipes that ship
//
// Who may import whom is a table in repo_test.go. Start reading at
// docs/architecture.md, which follows one training step and one token through the
// code, and kernel.RefLinear (the layer's formula). docs/spec.md says what is
// computed ("SPEC §1" in a comment is its section 1), docs/rationale.md why.
package spinnet
