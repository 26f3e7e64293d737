package kernel

import "golang.org/x/sys/cpu"

// machineSets lists the sets this machine runs, best last.
func machineSets() []set {
	sets := []set{setRef}
	x := cpu.X86
	if x.HasAVX2 && x.HasFMA && x.HasPOPCNT {
		sets = append(sets, setAVX2)
		if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasBMI2 {
			sets = append(sets, setAVX512)
		}
	}
	return sets
}
