package csi

import (
	"fmt"
	"math"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

const (
	mebibyte    = int64(1) << 20
	defaultSize = int64(1) << 30
)

// sizeRange is a capacity range that makes sense. A limit of 0 is none.
type sizeRange struct{ required, limit int64 }

// readRange checks what the CO asked for.
func readRange(r *spec.CapacityRange) (sizeRange, error) {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	if required < 0 || limit < 0 {
		return sizeRange{}, invalid("capacity_range has a negative size (required_bytes %d, limit_bytes %d)", required, limit)
	}
	if limit > 0 && required > limit {
		return sizeRange{}, invalid("capacity_range requires %d bytes and allows at most %d", required, limit)
	}
	return sizeRange{required, limit}, nil
}

// size is the size to create: the required bytes rounded up to whole MiB, or
// 1 GiB (less if the limit is lower) where nothing is required.
func (r sizeRange) size() (int64, error) {
	want := r.required
	switch {
	case want == 0 && r.limit == 0:
		return defaultSize, nil
	case want == 0:
		want = min(defaultSize, r.limit/mebibyte*mebibyte)
		if want == 0 {
			return 0, fmt.Errorf("%w: at most %d bytes are allowed, and volumes are whole MiB", rds.ErrOutOfRange, r.limit)
		}
	case want > math.MaxInt64-mebibyte:
		return 0, fmt.Errorf("%w: %d bytes are more than any array has", rds.ErrOutOfRange, want)
	}
	want = (want + mebibyte - 1) / mebibyte * mebibyte
	if r.limit > 0 && want > r.limit {
		return 0, fmt.Errorf("%w: %d bytes rounded up to whole MiB are %d, and at most %d are allowed", rds.ErrOutOfRange, r.required, want, r.limit)
	}
	return want, nil
}
