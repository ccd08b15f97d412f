-- Shared by the scripts beside it: prints what a run counted as one line that the harness reads.

local threads = {}

function setup(thread)
   thread:set("number", #threads)
   table.insert(threads, thread)
end

function done(summary, latency, requests)
   local wrong, first = 0, ""
   for _, thread in ipairs(threads) do
      wrong = wrong + (thread:get("wrong") or 0)
      if first == "" then first = thread:get("first_wrong") or "" end
   end
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "microseconds": %d, "bytes": %d, "p50": %d, "p99": %d, ' ..
      '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d, "wrong": %d, "first_wrong": "%s"}\n',
      summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.timeout, errors.status, wrong, first))
end

function read_body(name)
   if name == "-" then return nil end
   local file = assert(io.open(name, "rb"))
   local body = file:read("*a")
   file:close()
   return body
end

function set_headers(args, first)
   for i = first, #args do
      local name, value = args[i]:match("^([^=]+)=(.*)$")
      wrk.headers[name] = value
   end
end
