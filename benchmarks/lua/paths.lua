-- One request per numbered path below the URL. One thread only: the number is the thread's own.
-- Arguments: method, body file or "-", how many paths (0: never the same one twice), then Name=value headers.

require "report"

local count, base, next_number
local prepared = {}

function init(args)
   wrk.method = args[1]
   wrk.body = read_body(args[2])
   count = tonumber(args[3])
   set_headers(args, 4)
   base = wrk.path .. "/"
   next_number = 0
   for n = 0, count - 1 do
      prepared[n] = wrk.format(nil, base .. n)
   end
end

function request()
   local n = next_number
   next_number = n + 1
   if count > 0 then return prepared[n % count] end
   return wrk.format(nil, base .. n)
end
