package csi

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// listed is one volume of a listing.
type listed struct {
	handle string
	volume rds.Volume
	pool   rds.Pool
}

// ListVolumes lists the volumes of every array with the nodes that hold them.
// csi-attacher acts on the answer, so the arrays are asked each time, and one
// that does not answer fails the whole listing: its volumes would seem detached.
func (s *Server) ListVolumes(ctx context.Context, r *spec.ListVolumesRequest) (*spec.ListVolumesResponse, error) {
	after, err := readPage(r)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	all, err := s.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	rest, next := paginate(all, func(l listed) string { return l.handle }, after, r.GetMaxEntries())
	response := &spec.ListVolumesResponse{NextToken: next}
	for _, l := range rest {
		response.Entries = append(response.Entries, &spec.ListVolumesResponse_Entry{
			Volume: &spec.Volume{VolumeId: l.handle, CapacityBytes: l.volume.Size},
			Status: &spec.ListVolumesResponse_VolumeStatus{PublishedNodeIds: s.config.Cluster.NodeIDs(l.volume.Ledger.Nodes())},
		})
	}
	return response, nil
}

// list reads every array, all at once.
func (s *Server) list(ctx context.Context) ([]listed, error) {
	views := make([]rds.View, len(s.config.Backends))
	group, ctx := errgroup.WithContext(ctx)
	for i := range s.config.Backends {
		group.Go(func() (err error) {
			views[i], err = s.config.Backends[i].Array.View(ctx)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var all []listed
	for i, view := range views {
		for slot, v := range view.Volumes {
			handle := s.volumeOf(&s.config.Backends[i], slot).handle
			// A slot that no handle can name is not a volume of this driver.
			if _, err := rds.ParseHandle(handle); err == nil {
				all = append(all, listed{handle: handle, volume: v, pool: view.Pool})
			}
		}
	}
	return all, nil
}

// paginate sorts by handle and cuts out the page behind after. Without a limit
// all the rest is one page.
func paginate[T any](all []T, handle func(T) string, after string, limit int32) (page []T, next string) {
	slices.SortFunc(all, func(a, b T) int { return cmp.Compare(handle(a), handle(b)) })
	page = slices.DeleteFunc(all, func(one T) bool { return after != "" && handle(one) <= after })
	if most := int(limit); most > 0 && len(page) > most {
		page = page[:most]
		next = makeToken(handle(page[most-1]))
	}
	return page, next
}

// A token is the last handle of the page before it, so that volumes that come and
// go between two pages neither repeat nor hide others.
const tokenPrefix = "after:"

func makeToken(handle string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenPrefix + handle))
}

// listing is a request for a page of something.
type listing interface {
	GetMaxEntries() int32
	GetStartingToken() string
}

// readPage is the handle after which the page begins that is asked for.
func readPage(r listing) (after string, err error) {
	if r.GetMaxEntries() < 0 {
		return "", invalid("max_entries is %d", r.GetMaxEntries())
	}
	if r.GetStartingToken() == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(r.GetStartingToken())
	after, ours := strings.CutPrefix(string(text), tokenPrefix)
	if err != nil || !ours {
		return "", errToken
	}
	if _, err := rds.ParseHandle(after); err != nil {
		return "", errToken
	}
	return after, nil
}
