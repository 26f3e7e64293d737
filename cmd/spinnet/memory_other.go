//go:build !linux

package main

// machineMemory is the bytes this process may use, 0 for unknown.
func machineMemory() int { return 0 }
