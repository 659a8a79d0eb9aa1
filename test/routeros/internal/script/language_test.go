package script

import "testing"

func TestLanguage(t *testing.T) {
	tests := map[string]struct{ src, want string }{
		"text":                       {`:put "a b"`, "a b"},
		"bare word":                  {`:put abc`, "abc"},
		"without colon":              {`put abc`, "abc"},
		"concatenation":              {`:put ("a" . "b" . 3)`, "ab3"},
		"arithmetic":                 {`:put (1 + 2 * 3 - 4 / 2)`, "5"},
		"brackets in arithmetic":     {`:put ((1+2)*3)`, "9"},
		"subtraction without spaces": {`:local a 5; :put ($a-3)`, "2"},
		"modulo and bits":            {`:put (7 % 4); :put (6 & 3); :put (6 | 1); :put (1 << 4)`, "3\n2\n7\n16"},
		"hexadecimal":                {`:put (0x10 + 1)`, "17"},
		"comparison":                 {`:put (1 < 2); :put (2 >= 3); :put ("a" = "a"); :put (1 != 1)`, "true\nfalse\ntrue\nfalse"},
		"number and text":            {`:put (1 = "1")`, "true"},
		"logic":                      {`:put (true && !false or false); :put (1 = 2 || 3 = 3)`, "true\ntrue"},
		"regular expression":         {`:put ("vm-1" ~ "^vm"); :put ("x" ~ "y")`, "true\nfalse"},
		"in":                         {`:put (2 in {1;2}); :put (3 in {1;2})`, "true\nfalse"},
		"variables":                  {`:local a 1; :set a ($a + 1); :put $a`, "2"},
		"name in quotes":             {`:local "a-b" 7; :put $"a-b"`, "7"},
		"in a string":                {`:local x 3; :put "x=$x, $($x + 1), $[:len abcd]"`, "x=3, 4, 4"},
		"name ends at a dash":        {`:local x 3; :put "$x-y"`, "3-y"},
		"block scope":                {`:local a 1; { :local a 2; :put $a }; :put $a`, "2\n1"},
		"inner block sees outer":     {`:local a 1; :if (true) do={ :set a 5 }; :put $a`, "5"},
		"if else":                    {`:if (1 = 2) do={:put yes} else={:put no}`, "false"},
		"foreach":                    {`:foreach i in={1;2} do={:put $i}`, "1\n2"},
		"foreach with key":           {`:foreach k,v in={b=2;a=1} do={:put "$k$v"}`, "a1\nb2"},
		"for":                        {`:for i from=1 to=3 do={:put $i}`, "1\n2\n3"},
		"for down":                   {`:for i from=3 to=1 step=-2 do={:put $i}`, "3\n1"},
		"while":                      {`:local i 0; :while ($i < 2) do={:put $i; :set i ($i+1)}`, "0\n1"},
		"do while":                   {`:local i 0; :do {:set i ($i+1)} while=($i < 3); :put $i`, "3"},
		"on-error":                   {`:do {:error "x"} on-error={:put caught}`, "caught"},
		"onerror":                    {`:onerror e in={:put a; :error "x"; :put b} do={:put ("E" . $e)}`, "a\nEx"},
		"onerror without error":      {`:onerror e in={:put a} do={:put b}`, "a"},
		"onerror of a menu":          {`:onerror e in={/box/set missing name=x} do={:put $e}`, "no such item (4)"},
		"nested onerror":             {`:onerror e in={:onerror f in={:error 1} do={:error "2$f"}} do={:put $e}`, "21"},
		"error ends the script":      {`:put a; :error "boom"; :put b`, "a!boom"},
		"array":                      {`:put ({1;"b";3}->1); :put [:len {1;2;3}]`, "b\n3"},
		"dictionary":                 {`:local a {x=1;"y z"=2}; :put ($a->"y z"); :put $a`, "2\nx=1;y z=2"},
		"index without brackets":     {`:local a {x=1}; :put $a->"x"`, "1"},
		"no such element":            {`:local a {x=1}; :put [:typeof ($a->"q")]`, "nothing"},
		"types": {
			`:put [:typeof 1]; :put [:typeof "1"]; :put [:typeof true]; :put [:typeof *1f]; :put [:typeof 10.0.0.1]; ` +
				`:put [:typeof 1d2h]; :put [:typeof $nope]; :put [:typeof {1}]; :put [:typeof [:find abc x]]`,
			"num\nstr\nbool\nid\nip\ntime\nnothing\narray\nnil",
		},
		"conversions":        {`:put ([:tonum "12"] + 1); :put [:tostr 5]; :put [:typeof [:tonum "1x"]]`, "13\n5\nnil"},
		"pick":               {`:put [:pick "abcdef" 1 3]; :put [:pick {1;2;3} 0]; :put [:pick "abc" 2]`, "bc\n1\nc"},
		"find in text":       {`:put [:find "hello" "l"]; :put [:find "hello" "l" 2]; :put [:find {5;6} 6]`, "2\n3\n1"},
		"function":           {`:local f do={:return ($1 + $b)}; :put [$f 3 b=4]`, "7"},
		"global":             {`:global g 4; { :global g; :put $g }`, "4"},
		"comments":           {"# one\n:put a # not one\n", "!expected end of command (line 2 column 8)"},
		"comment line":       {"# one\n:put a\n  # two\n:put b", "a\nb"},
		"newlines":           {":put a\r\n:put b\n\n;;:put c", "a\nb\nc"},
		"continued line":     {":put \\\r\n  a", "a"},
		"block on its own":   {`{ :put a; :put b }`, "a\nb"},
		"durations":          {`:put 1d2h; :put 00:01:30`, "1d02:00:00\n00:01:30"},
		"nothing":            {`:nothing; :put [:len $nope]`, "0"},
		"division by zero":   {`:put (1 / 0)`, "!division by zero"},
		"not a condition":    {`:if (5) do={}`, "!conditional not boolean"},
		"single quotes":      {`:put 'a b'`, "!expected end of command (line 1 column 9)"},
		"not a word":         {`:put ('a')`, "!syntax error (line 1 column 7)"},
		"yes is a boolean":   {`:put yes; :put (no = false)`, "true\ntrue"},
		"deserialize":        {`:put ([:deserialize from=json value="{\"a\":[1,2]}"]->"a")`, "1;2"},
		"serialize":          {`:put [:serialize to=json value={a=1;b={true;"x"};c={}}]`, `{"a":1,"b":[true,"x"],"c":[]}`},
		"string conversion":  {`:put [:serialize to=json value={"12";"true"}]`, `[12,true]`},
		"without conversion": {`:put [:serialize to=json options=json.no-string-conversion value={"12";"true"}]`, `["12","true"]`},
		"pretty":             {`:put [:serialize to=json options=json.pretty value={1}]`, "[\n    1\n]"},
		"json text":          {`:put [:serialize to=json value="a\"\\\n<"]`, `"a\"\\\n<"`},
		"unknown format":     {`:put [:serialize to=xml value=1]`, "!input does not match any value of to"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := exec(t, tt.src)
			if got != tt.want {
				t.Errorf("%s\ngot  %q\nwant %q", tt.src, got, tt.want)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	tests := map[string]struct{ src, want string }{
		"slashes":             {`:put [/box/find name=a]`, "a"},
		"spaces":              {`:put [/box find name=a]`, "a"},
		"from the root":       {`:put [box find name=a]`, "a"},
		"deeper":              {`:put [/box/lid/open]; :put [/box lid open]`, "opened\nopened"},
		"change of menu":      {`/box; :put [find name=a]; lid; :put [open]; ..; :put [find name=a]`, "a\nopened\na"},
		"ends with the block": {`{ /box; :put [find name=a] }; /box/lid/open`, "a"},
		"menu block":          {`/box { :put [find name=a]; lid { :put [open] } }`, "a\nopened"},
		"brackets of a menu's command stand in its menu": {`:put [/box/set [find name=a] name=z]`, "set a name=z"},
		"abbreviated":            {`:put [/bo fi name=a]`, "a"},
		"ambiguous abbreviation": {`/box s`, "!bad command name s (line 1 column 6)"},
		"positional item":        {`:put [/box/set a,b name=q]`, "set a,b name=q"},
		"named item":             {`:put [/box/set numbers=a name=q]`, "set a name=q"},
		"no item":                {`/box/set name=q`, "!expected item id (line 1 column 16)"},
		"word as a name":         {`:put [/box/set name name=q]`, "set name name=q"},
		"bad command":            {`/box foo`, "!bad command name foo (line 1 column 6)"},
		"bad builtin":            {`:foo`, "!bad command name foo (line 1 column 2)"},
		"bad first word":         {`foo`, "!bad command name foo (line 1 column 1)"},
		"second line":            {":put a\n  foo", "!bad command name foo (line 2 column 3)"},
		"bad parameter":          {`/box/set a foo=1`, "!bad parameter foo (line 1 column 12)"},
		"bad flag":               {`/box/print once`, "!bad parameter once (line 1 column 12)"},
		"too many":               {`/box/print "x"`, "!expected end of command (line 1 column 12)"},
		"missing value":          {`/box/set a name=`, "!missing value for name (line 1 column 17)"},
		"missing where":          {`/box/print where`, "!missing value for where (line 1 column 17)"},
		"undeclared variable":    {`:set x 1`, "!syntax error (line 1 column 6)"},
		"closing too much":       {`:put a}`, "!syntax error (line 1 column 7)"},
		"parse errors bypass onerror": {
			`:put before; :onerror e in={ /box/foo } do={ :put caught }`, "!bad command name foo (line 1 column 35)",
		},
		"open string":  {`:put "a`, "!incomplete"},
		"open block":   {`{ :put a`, "!incomplete"},
		"open bracket": {`:put [/box find`, "!incomplete"},
		"open paren":   {`:put (1 +`, "!incomplete"},
		"open array":   {`:put {1;2`, "!incomplete"},
		"open in do":   {`:if (true) do={ :put a`, "!incomplete"},
		"half escape":  {`:put "a\`, "!incomplete"},
		"bad escape":   {`:put "a\q"`, "!syntax error (line 1 column 8)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := exec(t, tt.src); got != tt.want {
				t.Errorf("%s\ngot  %q\nwant %q", tt.src, got, tt.want)
			}
		})
	}
}

func TestWhere(t *testing.T) {
	tests := map[string]struct{ src, want string }{
		"equal":                        {`name="a"`, "a"},
		"with where":                   {`where name="a"`, "a"},
		"bare word":                    {`where name=a`, "a"},
		"not equal":                    {`where name!="a"`, "b/c;d:e;5"},
		"a number as a name":           {`where name=5`, "5"},
		"regular expression":           {`where name~"^[ab]"`, "a;b/c"},
		"and":                          {`where name~"a|b" and size>0`, "b/c"},
		"side by side means and":       {`where name~"a|b" size>0`, "b/c"},
		"or":                           {`where name=a or name=5`, "a;5"},
		"brackets":                     {`where (name=a or name=5) and size<1`, "a"},
		"not":                          {`where !(name=a)`, "b/c;d:e;5"},
		"not as a word":                {`where not name=a`, "b/c;d:e;5"},
		"greater":                      {`where size>=2`, "d:e;5"},
		"unset":                        {`where comment=""`, "a;b/c;d:e;5"},
		"unset is no text":             {`where comment=x`, ""},
		"not set":                      {`where !comment`, "a;b/c;d:e;5"},
		"unknown property":             {`where colour=red`, ""},
		"expression":                   {`where name=("b" . "/c")`, "b/c"},
		"command":                      {`where name=[:pick "xay" 1]`, "a"},
		"quoted slash":                 {`where name="b/c"`, "b/c"},
		"trap: unquoted slash":         {`where name=b/c`, ""},
		"quoted colon":                 {`where name="d:e"`, "d:e"},
		"trap: unquoted colon":         {`where name=d:e`, ""},
		"no single quotes":             {`where name='a'`, ""},
		"trap: lost dollar":            {`where name="a$y"`, "a"},
		"nothing given finds all":      {``, "a;b/c;d:e;5"},
		"where does not change things": {`where name=a`, "a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := exec(t, ":put [/box/find "+tt.src+"]"); got != tt.want {
				t.Errorf("%s\ngot  %q\nwant %q", tt.src, got, tt.want)
			}
		})
	}
}

func TestTrapVariableNamedLikeProperty(t *testing.T) {
	const all = "4"
	tests := map[string]struct{ src, want string }{
		"own name":         {`:local nm a; :put [:len [/box/find where name=$nm]]`, "1"},
		"property's name":  {`:local name a; :put [:len [/box/find where name=$name]]`, all},
		"global, too":      {`:global name a; :put [:len [/box/find where name=$name]]`, all},
		"in a string, too": {`:local name a; :put [:len [/box/find where name="$name"]]`, all},
		"outside where":    {`:local name a; :put $name`, "a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := exec(t, tt.src); got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.src, got, tt.want)
			}
		})
	}
}
