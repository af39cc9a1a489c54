#!/bin/sh
# Prints one line per item: what, figure, bound, pass or short. Fails where an item is short or missing.
#
#   tests/show/table.sh ITEMS RESULTS
#
# ITEMS has the columns name, what, bound; RESULTS has name, figure, result. Both are separated by tabs.
set -eu
items=$1
results=$2
[ -e "$results" ] || : >"$results"
awk -F '\t' '
	BEGIN { format = "%-64s  %-50s  %-34s  %s\n"; printf format, "WHAT", "FIGURE", "BOUND", "RESULT" }
	FILENAME == ARGV[1] { figure[$1] = $2; if (result[$1] != "short") result[$1] = $3; next }
	/^#/ || NF < 3 { next }
	{
		if (!($1 in result)) { figure[$1] = "not shown"; result[$1] = "short" }
		if (result[$1] == "short") short++
		all++
		printf format, $2, figure[$1], $3, result[$1]
	}
	END {
		printf "%d of %d pass\n", all - short, all
		exit (short > 0 || all == 0)
	}
' "$results" "$items"
