-- Requests for random ones of many numbered paths below the URL.
-- Arguments: method, body file or "-", how many paths, then Name=value headers.

require "report"

local count, base

function init(args)
   wrk.method = args[1]
   wrk.body = read_body(args[2])
   count = tonumber(args[3])
   set_headers(args, 4)
   base = wrk.path .. "/"
   math.randomseed(os.time())
end

function request()
   return wrk.format(nil, base .. math.random(0, count - 1))
end
