#include "textflag.h"

// func callbackPC() uint64
//
// It names the wrapper of ic0_callback, which has the signature that the
// system calls and for which Go has no name.
TEXT ·callbackPC(SB), NOSPLIT, $0-8
	MOVD $ic0_callback(SB), ret+0(FP)
	RET
