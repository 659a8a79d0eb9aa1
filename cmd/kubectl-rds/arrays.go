package main

import (
	"context"
	"sync"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/cmd/internal/rdsdriver"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/gather"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/poll"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

const (
	// arrayTimeout bounds how long the arrays are waited for.
	arrayTimeout = 15 * time.Second
	// arrayInterval makes a view stale after three times as long; there is one read only.
	arrayInterval = 10 * time.Second
)

// askArrays reads each array of the RDSDriver once, from here, with the operator's
// keys. What it could not ask is unknown from then on, and problems say why.
func (c *cluster) askArrays(ctx context.Context, operatorNamespace string) (problems []string) {
	if c.driver == nil {
		return []string{"there is no RDSDriver to say which arrays there are"}
	}
	configs, reasons := rdsdriver.ArraysWithKeys(ctx, c.live, operatorNamespace, &c.driver.Spec)
	for _, err := range reasons {
		problems = append(problems, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, arrayTimeout)
	defer cancel()
	views := make([]*poll.Poller, len(configs))
	errs := make([]error, len(configs))
	var asked sync.WaitGroup
	for i := range configs {
		asked.Go(func() { views[i], errs[i] = ask(ctx, configs[i]) })
	}
	asked.Wait()
	all := gather.Arrays{}
	for i, config := range configs {
		if errs[i] != nil {
			problems = append(problems, errs[i].Error())
		}
		all.Add(config.Name, config.Default, views[i])
	}
	c.gather.Views = all
	return problems
}

// ask reads one array. Its view is there in any case, and stale if it did not answer.
func ask(ctx context.Context, config routeros.Config) (*poll.Poller, error) {
	array, err := routeros.New(config)
	if err != nil {
		return poll.New(nil, arrayInterval), err
	}
	defer array.Close()
	poller := poll.New(array, arrayInterval)
	_, err = poller.Poll(ctx)
	return poller, err
}
