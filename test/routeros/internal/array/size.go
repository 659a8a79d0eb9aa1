package array

import (
	"math"
	"regexp"
	"strconv"
)

var reSize = regexp.MustCompile(`^(\d+)(?:\.(\d+))?\s*(?:([KMGTP])(?:iB|i)?)?B?$`)

// parseSize reads exact bytes or a number with a binary suffix: 1T is 2^40.
func parseSize(text string) (int64, bool) {
	m := reSize.FindStringSubmatch(text)
	if m == nil || m[2] != "" && m[3] == "" {
		return 0, false
	}
	shift := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}[m[3]]
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, false
	}
	n <<= shift
	if m[2] != "" {
		f, err := strconv.ParseFloat("0."+m[2], 64)
		if err != nil {
			return 0, false
		}
		n += int64(f * float64(int64(1)<<shift))
	}
	return n, true
}
