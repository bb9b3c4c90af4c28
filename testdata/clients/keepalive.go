// Posts to an unknown path and then a signed message, again and again, with the default client of Go.
// Arguments: port, how often, signature and body of the message. Prints how many messages were answered 200.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// A body whose pieces come one after the other, so that the head is sent first.
type pieces struct{ rest []string }

func (p *pieces) Read(into []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	count := copy(into, p.rest[0])
	p.rest[0] = p.rest[0][count:]
	if p.rest[0] == "" {
		p.rest = p.rest[1:]
	}
	return count, nil
}

func post(url, signature string, body io.Reader, length int64) int {
	request, err := http.NewRequest("POST", url, body)
	if err != nil {
		panic(err)
	}
	request.ContentLength = length
	if signature != "" {
		request.Header.Set("X-Signature", signature)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return response.StatusCode
}

func main() {
	base, signature, body := "http://127.0.0.1:"+os.Args[1], os.Args[3], os.Args[4]
	rounds, _ := strconv.Atoi(os.Args[2])
	taken := 0
	for round := 0; round < rounds; round++ {
		// More than Go collects before it sends, so that the head is on its way first.
		half := strings.Repeat("x", 6000)
		refused := post(base+"/webhook/nope", "", &pieces{[]string{half, half}}, 12000)
		if refused != 404 {
			fmt.Println("the stranger got", refused)
			os.Exit(1)
		}
		// No reader that can be read again: nothing is sent twice.
		if post(base+"/webhook", signature, io.MultiReader(strings.NewReader(body)), int64(len(body))) == 200 {
			taken++
		}
	}
	fmt.Println(taken)
}
