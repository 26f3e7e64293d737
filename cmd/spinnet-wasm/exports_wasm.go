package main

import "unsafe"

// The exports of the canister. A name behind "canister_update:" or
// "canister_query:" is a method, which canister/link gives the name that the
// Internet Computer expects, with a space for the colon: Go has no such names.

// These two tell the link step where model is, and its size.
//
//go:wasmexport model_address
func exportModelAddress() uint32 { return uint32(uintptr(unsafe.Pointer(&model))) }

//go:wasmexport model_capacity
func exportModelCapacity() uint32 { return uint32(modelCapacity) }

//go:wasmexport canister_init
func exportInit() { start() }

//go:wasmexport canister_pre_upgrade
func exportPreUpgrade() { app.save() }

//go:wasmexport canister_post_upgrade
func exportPostUpgrade() { start() }

//go:wasmexport canister_update:generate
func exportGenerate() { serve("generate") }

//go:wasmexport canister_update:resume
func exportResume() { serve("resume") }

//go:wasmexport canister_update:end_session
func exportEndSession() { serve("end_session") }

//go:wasmexport canister_update:start_generation
func exportStartGeneration() { serve("start_generation") }

//go:wasmexport canister_update:start_forward
func exportStartForward() { serve("start_forward") }

//go:wasmexport canister_update:process_layers
func exportProcessLayers() { serve("process_layers") }

//go:wasmexport canister_update:finish_forward
func exportFinishForward() { serve("finish_forward") }

//go:wasmexport canister_update:generate_next_token
func exportGenerateNextToken() { serve("generate_next_token") }

//go:wasmexport canister_update:generate_n_tokens
func exportGenerateNTokens() { serve("generate_n_tokens") }

//go:wasmexport canister_update:generate_full
func exportGenerateFull() { serve("generate_full") }

//go:wasmexport canister_update:pause_service
func exportPauseService() { serve("pause_service") }

//go:wasmexport canister_update:resume_service
func exportResumeService() { serve("resume_service") }

//go:wasmexport canister_update:set_limits
func exportSetLimits() { serve("set_limits") }

//go:wasmexport canister_query:session
func exportSession() { serve("session") }

//go:wasmexport canister_query:sessions
func exportSessions() { serve("sessions") }

//go:wasmexport canister_query:health
func exportHealth() { serve("health") }

//go:wasmexport canister_query:metrics
func exportMetrics() { serve("metrics") }

//go:wasmexport canister_query:get_limits
func exportGetLimits() { serve("get_limits") }

//go:wasmexport canister_query:get_result
func exportGetResult() { serve("get_result") }

//go:wasmexport canister_query:generation_status
func exportGenerationStatus() { serve("generation_status") }

//go:wasmexport canister_query:get_config
func exportGetConfig() { serve("get_config") }

//go:wasmexport canister_query:generate_quick
func exportGenerateQuick() { serve("generate_quick") }

//go:wasmexport canister_update:upload_begin
func exportUploadBegin() { serve("upload_begin") }

//go:wasmexport canister_update:upload_chunk
func exportUploadChunk() { serve("upload_chunk") }

//go:wasmexport canister_update:upload_commit
func exportUploadCommit() { serve("upload_commit") }

//go:wasmexport canister_update:upload_abort
func exportUploadAbort() { serve("upload_abort") }

//go:wasmexport canister_query:upload_status
func exportUploadStatus() { serve("upload_status") }

//go:wasmexport canister_update:remove_model
func exportRemoveModel() { serve("remove_model") }
