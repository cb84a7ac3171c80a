// Go's sync.Pool, measured once in the way that get_put.py and scaling.py measure aiopool.
//
// Each operation is done by one goroutine with GOMAXPROCS 1, and by two goroutines at the same time with GOMAXPROCS 2.
// The result, as JSON, is how many operations all goroutines together did in a second. It is taken over a fixed time
// rather than a fixed number of operations, so that every goroutine runs for as long as the others do.
//
// The garbage collector is off while something is measured, as it is in the Python programs: a collection is a cleanup
// cycle of every pool.
//
// The arguments are the numbers of the cores that the goroutines' threads are pinned to.
package main

import (
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

const (
	// How long one sample takes.
	sample = 30 * time.Millisecond
	// How long the goroutines work between two looks at the clock.
	chunk = sample / 30
	// How many objects are in flight where it is more than one.
	inFlight = 100
	// How many puts follow a hundred gets where objects are scarce, as in Go's own benchmark.
	puts = 67
)

// The size of Python's object().
type object struct{ a, b uintptr }

func newObject() any { return new(object) }

type operation struct {
	name string
	// Gets in each of the n turns of work.
	gets int
	new  func() any
	work func(pool *sync.Pool, n int)
}

var operations = []operation{
	{"get + put", 1, newObject, func(pool *sync.Pool, n int) {
		for i := 0; i < n; i++ {
			pool.Put(pool.Get())
		}
	}},
	{"100 in flight", inFlight, newObject, func(pool *sync.Pool, n int) {
		var objects [inFlight]any
		for i := 0; i < n; i++ {
			for j := range objects {
				objects[j] = pool.Get()
			}
			for j := range objects {
				pool.Put(objects[j])
			}
		}
	}},
	{"100 gets, 67 puts", inFlight, nil, func(pool *sync.Pool, n int) {
		var objects [puts]any
		for j := range objects {
			objects[j] = newObject()
		}
		for i := 0; i < n; i++ {
			for _, each := range objects {
				pool.Put(each)
			}
			for j := 0; j < inFlight; j++ {
				pool.Get()
			}
		}
	}},
	{"miss", 1, newObject, func(pool *sync.Pool, n int) {
		for i := 0; i < n; i++ {
			pool.Get()
		}
	}},
}

// rate is how many gets `goroutines` of them do in a second together.
func rate(op operation, goroutines int, cores []int) float64 {
	runtime.GOMAXPROCS(goroutines)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	pool := &sync.Pool{New: op.new}
	n := calibrate(op, pool)

	rates := make([]float64, goroutines)
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for g := range rates {
		ready.Add(1)
		done.Add(1)
		go func(g int) {
			defer done.Done()
			// Never unlocked: so the pinned thread ends with its goroutine.
			runtime.LockOSThread()
			if g < len(cores) {
				pin(cores[g])
			}
			ready.Done()
			<-start
			begin := startClock()
			count := 0
			for begin.wall() < sample {
				op.work(pool, n)
				count += n * op.gets
			}
			rates[g] = float64(count) / begin.seconds()
		}(g)
	}
	ready.Wait()
	close(start)
	done.Wait()

	sum := 0.0
	for _, each := range rates {
		sum += each
	}
	return sum
}

// calibrate finds out how many turns take about one chunk.
func calibrate(op operation, pool *sync.Pool) int {
	n := 1
	for {
		begin := time.Now()
		op.work(pool, n)
		if elapsed := time.Since(begin); elapsed >= chunk/4 {
			return int(float64(n)*float64(chunk)/float64(elapsed)) + 1
		}
		n *= 4
	}
}

// stealRate is how many gets one goroutine does in a second that steals what another processor has put.
//
// Go does not say which processor a goroutine runs on, but the last object shows it: it lies in the private slot of the
// processor that put it, where no other can steal it.
func stealRate() float64 {
	runtime.GOMAXPROCS(2)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const n = 1 << 16
	for { // until a goroutine on another processor has put the objects
		pool := &sync.Pool{}
		filled, end := make(chan struct{}), make(chan struct{})
		go func() {
			for i := 0; i < n+1; i++ {
				pool.Put(newObject())
			}
			close(filled)
			// Keep that processor busy, so that the stealing goroutine stays on its own.
			for {
				select {
				case <-end:
					return
				default:
				}
			}
		}()
		spin(filled)
		begin := startClock()
		for i := 0; i < n; i++ {
			pool.Get()
		}
		seconds := begin.seconds()
		stolen := pool.Get() == nil
		close(end)
		if stolen {
			return n / seconds
		}
	}
}

// spin waits without giving up its processor.
func spin(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
	}
}

func main() {
	var cores []int
	for _, arg := range os.Args[1:] {
		core, err := strconv.Atoi(arg)
		if err != nil {
			panic(err)
		}
		cores = append(cores, core)
	}
	rates := map[string]map[string]float64{"steal": {"1": stealRate()}}
	for _, op := range operations {
		runtime.GC()
		rates[op.name] = map[string]float64{"1": rate(op, 1, cores), "2": rate(op, 2, cores)}
	}
	err := json.NewEncoder(os.Stdout).Encode(map[string]any{"version": runtime.Version(), "rates": rates})
	if err != nil {
		panic(err)
	}
}
