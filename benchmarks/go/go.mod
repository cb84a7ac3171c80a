module aiopool/benchmarks

go 1.18
