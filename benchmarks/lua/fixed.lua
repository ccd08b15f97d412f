-- The same request again and again. Arguments: method, body file or "-", then Name=value headers.

require "report"

function init(args)
   wrk.method = args[1]
   wrk.body = read_body(args[2])
   set_headers(args, 3)
end
