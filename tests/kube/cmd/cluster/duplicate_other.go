//go:build !linux

package main

import "golang.org/x/sys/unix"

// duplicate makes descriptor target mean what source means.
func duplicate(source, target int) error { return unix.Dup2(source, target) }
