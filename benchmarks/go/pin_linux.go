package main

import (
	"syscall"
	"unsafe"
)

// pin keeps the calling thread, to which its goroutine is locked, on one core.
func pin(core int) {
	var mask [1024 / 64]uint64
	mask[core/64] = 1 << (core % 64)
	syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
}
