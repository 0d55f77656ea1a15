-- wrk sends the requests of the file that RVP_BENCH_REQUESTS names, one after the other, round and round, and
-- prints what it saw as one line of JSON.  In the file each is preceded by a line with its length.

local requests, turn = {}, 0

function init()
    local file = assert(io.open(os.getenv("RVP_BENCH_REQUESTS"), "rb"))
    local size = file:read("*n")
    while size do
        file:read(1)
        requests[#requests + 1] = file:read(size)
        size = file:read("*n")
    end
    file:close()
end

function request()
    turn = turn % #requests + 1
    return requests[turn]
end

function done(summary, latency)
    local e = summary.errors
    print(string.format(
        '{"ops": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "failures": %d}',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout))
end
