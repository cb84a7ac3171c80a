package main

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// clock measures the time in which the calling thread had its core. The time in which it waited for a core that another
// thread had is left out, where the system reports it. The goroutine must be locked to its thread.
type clock struct {
	start  time.Time
	waited time.Duration
}

func startClock() clock {
	waited := waited()
	return clock{time.Now(), waited}
}

// wall is all the time since the start.
func (c clock) wall() time.Duration { return time.Since(c.start) }

// seconds since the start in which the thread had its core.
func (c clock) seconds() float64 {
	elapsed := time.Since(c.start)
	return (elapsed - (waited() - c.waited)).Seconds()
}

// waited is for how long the thread had work to do and no core to do it on.
func waited() time.Duration {
	content, err := os.ReadFile("/proc/thread-self/schedstat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(content))
	nanoseconds, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(nanoseconds)
}
