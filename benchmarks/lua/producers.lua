-- One idempotent producer per thread. Run with as many threads as connections: then a thread's responses belong
-- to its only connection, and its sequence moves on when, and only when, its append was accepted.
-- Arguments: body file, producer id prefix, then Name=value headers.

require "report"

local prefix
local sequence = 0
wrong = 0
first_wrong = ""

function init(args)
   wrk.method = "POST"
   wrk.body = read_body(args[1])
   prefix = args[2]
   set_headers(args, 3)
   wrk.headers["Producer-Id"] = prefix .. "-" .. number
   wrk.headers["Producer-Epoch"] = "0"
end

-- wrk calls this once more than it sends (to look for pipelining), so nothing may be counted here.
function request()
   wrk.headers["Producer-Seq"] = sequence
   return wrk.format()
end

function response(status, headers, body)
   if status == 200 then
      sequence = sequence + 1
   else
      wrong = wrong + 1
      if first_wrong == "" then first_wrong = "status " .. status end
   end
end
