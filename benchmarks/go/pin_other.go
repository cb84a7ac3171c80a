//go:build !linux

package main

// pin does nothing where a program cannot choose the core of a single thread in the same way.
func pin(core int) {}
