package kernel

import "errors"

// set is one collection of implementations.
type set uint8

const (
	setRef set = iota // plain Go
	setAVX2
	setAVX512
	setNEON
	setSIMD128
)

var setNames = [...]string{setRef: "ref", setAVX2: "avx2", setAVX512: "avx512", setNEON: "neon", setSIMD128: "simd128"}

// active is the set in use. It changes only before main and in tests.
var active, setErr = chooseSet(forcedSet())

// Set names the kernel set in use: "avx512", "avx2", "neon", "simd128" or "ref". The
// environment variable SPINNET_KERNEL forces one of them.
func Set() string { return setNames[active] }

// Sets names the kernel sets that this machine has, best last.
func Sets() []string {
	var names []string
	for _, s := range machineSets() {
		names = append(names, setNames[s])
	}
	return names
}

// SetError says why SPINNET_KERNEL could not be followed, or nil. The best
// set of the machine is in use then.
func SetError() error { return setErr }

// chooseSet picks the forced set, or with an empty name the best this
// machine has.
func chooseSet(forced string) (set, error) {
	sets := machineSets()
	best := sets[len(sets)-1]
	if forced == "" {
		return best, nil
	}
	for s, name := range setNames {
		if name != forced {
			continue
		}
		for _, have := range sets {
			if have == set(s) {
				return have, nil
			}
		}
		return best, errors.New("kernel: SPINNET_KERNEL=" + forced + ": this machine lacks it")
	}
	return best, errors.New("kernel: SPINNET_KERNEL=" + forced + ": no such kernel set; known are ref, avx2, avx512, neon")
}
