package main

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory is the bytes this process may use: the machine's, or its
// container's when that is less.
func machineMemory() int {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	total := int(uint64(info.Totalram) * uint64(info.Unit)) //nolint:unconvert // uint32 on 32-bit machines
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil { // else it is "max"
			total = min(total, limit)
		}
	}
	return total
}
