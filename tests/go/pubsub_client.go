// Drives the Pub/Sub API with the official Go client, one line a case.
//
//	PUBSUB_EMULATOR_HOST=127.0.0.1:8085 go run tests/go/pubsub_client.go
//
// Needs the client, as Debian's golang-google-cloud-dev brings it (GO111MODULE=off
// GOPATH=/usr/share/gocode), and a server in development mode. With LEVADA_HOST and LEVADA_KEY
// instead, every call carries the key over TLS (SSL_CERT_FILE names the certificate to trust), and
// LEVADA_PROJECT names a project that the key may use. Ends with status 1 when a case failed.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub"
	"golang.org/x/oauth2"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const limit = 60 * time.Second

var (
	key     = os.Getenv("LEVADA_KEY")
	host    = os.Getenv("PUBSUB_EMULATOR_HOST")
	project = "go-suite"
	run     = strconv.FormatInt(time.Now().UnixNano(), 36)
)

func connect(ctx context.Context, key string) (*pubsub.Client, error) {
	if key == "" {
		return pubsub.NewClient(ctx, project)
	}
	// As docs/pubsub.md has it.
	token := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: key})
	return pubsub.NewClient(ctx, project, option.WithEndpoint(host), option.WithTokenSource(token))
}

func check(ok bool, format string, args ...interface{}) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

type suite struct {
	ctx    context.Context
	client *pubsub.Client
}

func (s suite) pair(name string, config pubsub.SubscriptionConfig) (*pubsub.Topic, *pubsub.Subscription) {
	topic, err := s.client.CreateTopic(s.ctx, name+"-"+run)
	must(err)
	config.Topic = topic
	subscription, err := s.client.CreateSubscription(s.ctx, name+"-"+run, config)
	must(err)
	return topic, subscription
}

func (s suite) publish(topic *pubsub.Topic, messages ...*pubsub.Message) []string {
	var results []*pubsub.PublishResult
	for _, message := range messages {
		results = append(results, topic.Publish(s.ctx, message))
	}
	var ids []string
	for _, result := range results {
		id, err := result.Get(s.ctx)
		must(err)
		ids = append(ids, id)
	}
	return ids
}

// consume hands messages of a stream to `take`, one at a time, until it answers true.
func (s suite) consume(subscription *pubsub.Subscription, take func(*pubsub.Message) bool) {
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	var turn sync.Mutex
	done := false
	must(subscription.Receive(ctx, func(_ context.Context, message *pubsub.Message) {
		turn.Lock()
		defer turn.Unlock()
		if !done && take(message) {
			done = true
			stop()
		}
	}))
	check(done, "the messages did not come in time")
}

func texts(n int) []*pubsub.Message {
	var messages []*pubsub.Message
	for i := 0; i < n; i++ {
		text := strconv.Itoa(i)
		messages = append(messages, &pubsub.Message{Data: []byte(text), Attributes: map[string]string{"n": text}})
	}
	return messages
}

func (s suite) MessagesComeThroughAStreamOnce() {
	topic, subscription := s.pair("stream", pubsub.SubscriptionConfig{})
	subscription.ReceiveSettings.MaxOutstandingMessages = 50
	published := s.publish(topic, texts(500)...)
	got := map[string]int{}
	s.consume(subscription, func(message *pubsub.Message) bool {
		check(message.Attributes["n"] == string(message.Data), "attributes %v", message.Attributes)
		message.Ack()
		got[message.ID]++
		return len(got) == 500
	})
	for _, id := range published {
		check(got[id] == 1, "%s came %d times", id, got[id])
	}
}

func (s suite) MessagesOfOneKeyComeInOrder() {
	topic, subscription := s.pair("order", pubsub.SubscriptionConfig{EnableMessageOrdering: true})
	topic.EnableMessageOrdering = true
	var messages []*pubsub.Message
	for i := 0; i < 50; i++ {
		for _, key := range []string{"a", "b"} {
			messages = append(messages, &pubsub.Message{Data: []byte(strconv.Itoa(i)), OrderingKey: key})
		}
	}
	s.publish(topic, messages...)
	next := map[string]int{}
	s.consume(subscription, func(message *pubsub.Message) bool {
		check(string(message.Data) == strconv.Itoa(next[message.OrderingKey]), "%s of %s, not %d",
			message.Data, message.OrderingKey, next[message.OrderingKey])
		next[message.OrderingKey]++
		message.Ack()
		return next["a"] == 50 && next["b"] == 50
	})
}

func (s suite) ANackRedelivers() {
	topic, subscription := s.pair("nack", pubsub.SubscriptionConfig{})
	s.publish(topic, texts(1)...)
	count := 0
	s.consume(subscription, func(message *pubsub.Message) bool {
		count++
		if count == 1 {
			message.Nack()
		} else {
			message.Ack()
		}
		return count == 2
	})
}

// This client is older than exactly-once delivery: the subscription is made by a call of REST, and
// what was acknowledged must not come to a second consumer.
func (s suite) ExactlyOnceDeliversOnce() {
	topic, err := s.client.CreateTopic(s.ctx, "once-"+run)
	must(err)
	name := fmt.Sprintf("projects/%s/subscriptions/once-%s", project, run)
	body := fmt.Sprintf(`{"topic": %q, "enableExactlyOnceDelivery": true, "ackDeadlineSeconds": 60}`, topic.String())
	scheme := "http://"
	if key != "" {
		scheme = "https://"
	}
	request, err := http.NewRequest("PUT", scheme+host+"/v1/"+name, strings.NewReader(body))
	must(err)
	if key != "" {
		request.Header.Set("authorization", "Bearer "+key)
	}
	answer, err := http.DefaultClient.Do(request)
	must(err)
	check(answer.StatusCode == 200, "%s", answer.Status)
	subscription := s.client.Subscription("once-" + run)
	s.publish(topic, texts(20)...)
	got := map[string]int{}
	s.consume(subscription, func(message *pubsub.Message) bool {
		message.Ack()
		got[string(message.Data)]++
		return len(got) == 20
	})
	s.publish(topic, &pubsub.Message{Data: []byte("last")})
	s.consume(subscription, func(message *pubsub.Message) bool {
		message.Ack()
		check(string(message.Data) == "last", "%s came again", message.Data)
		return true
	})
	for text, count := range got {
		check(count == 1, "%s came %d times", text, count)
	}
}

func (s suite) ResourcesAreListed() {
	topic, subscription := s.pair("list", pubsub.SubscriptionConfig{})
	var names []string
	for found := topic.Subscriptions(s.ctx); ; {
		next, err := found.Next()
		if err == iterator.Done {
			break
		}
		must(err)
		names = append(names, next.String())
	}
	sort.Strings(names)
	check(len(names) == 1 && names[0] == subscription.String(), "%v", names)
	must(subscription.Delete(s.ctx))
	_, err := subscription.Config(s.ctx)
	check(status.Code(err) == codes.NotFound, "%v", err)
}

func (s suite) AWrongKeyIsRefused() {
	if key == "" {
		return
	}
	client, err := connect(s.ctx, "wrong")
	must(err)
	_, err = client.CreateTopic(s.ctx, "refused-"+run)
	check(status.Code(err) == codes.Unauthenticated, "%v", err)
}

func attempt(body func()) (err error) {
	defer func() {
		if failure := recover(); failure != nil {
			err = fmt.Errorf("%v", failure)
		}
	}()
	body()
	return nil
}

func main() {
	if key != "" {
		host, project = os.Getenv("LEVADA_HOST"), os.Getenv("LEVADA_PROJECT")
	}
	client, err := connect(context.Background(), key)
	must(err)
	failed := 0
	for _, c := range []struct {
		name string
		body func(suite)
	}{
		{"MessagesComeThroughAStreamOnce", suite.MessagesComeThroughAStreamOnce},
		{"MessagesOfOneKeyComeInOrder", suite.MessagesOfOneKeyComeInOrder},
		{"ANackRedelivers", suite.ANackRedelivers},
		{"ExactlyOnceDeliversOnce", suite.ExactlyOnceDeliversOnce},
		{"ResourcesAreListed", suite.ResourcesAreListed},
		{"AWrongKeyIsRefused", suite.AWrongKeyIsRefused},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		began := time.Now()
		word := "ok    "
		if err := attempt(func() { c.body(suite{ctx, client}) }); err != nil {
			failed++
			word = "FAILED"
			fmt.Fprintln(os.Stderr, err)
		}
		cancel()
		fmt.Printf("%s %s (%.1f s)\n", word, c.name, time.Since(began).Seconds())
	}
	if failed > 0 {
		os.Exit(1)
	}
}
