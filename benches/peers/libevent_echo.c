/* The C libevent twin: `libevent_echo echo|sink ADDRESS`, ADDRESS as tcp://127.0.0.1:0 or
 * unix:///path. A plain bufferevent server as the libevent book writes it: what is read goes to
 * the output by evbuffer_add_buffer, nothing is tuned. A sink drops what it reads and answers the
 * end of the stream with the number of bytes, 8 bytes little endian. Runs until SIGTERM. */
#include <arpa/inet.h>
#include <endian.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

static int sink;
static int is_tcp;

static void on_read(struct bufferevent *bev, void *unused)
{
	(void)unused;
	evbuffer_add_buffer(bufferevent_get_output(bev), bufferevent_get_input(bev));
}

struct count {
	uint64_t bytes;
};

static void on_read_drop(struct bufferevent *bev, void *ctx)
{
	struct count *count = ctx;
	struct evbuffer *input = bufferevent_get_input(bev);
	size_t len = evbuffer_get_length(input);
	count->bytes += len;
	evbuffer_drain(input, len);
}

static void on_last_write(struct bufferevent *bev, void *ctx)
{
	if (evbuffer_get_length(bufferevent_get_output(bev)) == 0) {
		free(ctx);
		bufferevent_free(bev);
	}
}

static void on_end(struct bufferevent *bev, short what, void *ctx)
{
	if ((what & BEV_EVENT_EOF) && sink) {
		uint64_t bytes = htole64(((struct count *)ctx)->bytes);
		bufferevent_setcb(bev, NULL, on_last_write, on_end, ctx);
		bufferevent_write(bev, &bytes, sizeof bytes);
		return;
	}
	if ((what & BEV_EVENT_EOF) && evbuffer_get_length(bufferevent_get_output(bev)) > 0) {
		bufferevent_setcb(bev, NULL, on_last_write, on_end, ctx);
		return;
	}
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
		free(ctx);
		bufferevent_free(bev);
	}
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from,
		      int len, void *unused)
{
	struct event_base *base = evconnlistener_get_base(listener);
	struct bufferevent *bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
	int one = 1;
	(void)from, (void)len, (void)unused;
	if (is_tcp)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (sink)
		bufferevent_setcb(bev, on_read_drop, NULL, on_end, calloc(1, sizeof(struct count)));
	else
		bufferevent_setcb(bev, on_read, NULL, on_end, NULL);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void on_term(evutil_socket_t fd, short what, void *base)
{
	(void)fd, (void)what;
	event_base_loopbreak(base);
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	struct sockaddr_storage at = {0};
	socklen_t at_len;
	const char *path = NULL;
	if (argc != 3) {
		fprintf(stderr, "usage: libevent_echo echo|sink ADDRESS\n");
		return 2;
	}
	sink = strcmp(argv[1], "sink") == 0;
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (strncmp(argv[2], "tcp://", 6) == 0) {
		struct sockaddr_in *in = (struct sockaddr_in *)&at;
		char host[64] = {0};
		unsigned port = 0;
		is_tcp = 1;
		if (sscanf(argv[2] + 6, "%63[0-9.]:%u", host, &port) != 2)
			fail("address");
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
			fail("address");
		at_len = sizeof *in;
	} else if (strncmp(argv[2], "unix://", 7) == 0) {
		struct sockaddr_un *un = (struct sockaddr_un *)&at;
		path = argv[2] + 7;
		un->sun_family = AF_UNIX;
		if (strlen(path) >= sizeof un->sun_path)
			fail("path");
		strcpy(un->sun_path, path);
		unlink(path);
		at_len = sizeof *un;
	} else {
		fprintf(stderr, "address: tcp:// or unix://\n");
		return 2;
	}

	struct event_base *base = event_base_new();
	struct evconnlistener *listener =
		evconnlistener_new_bind(base, on_accept, NULL,
					LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 4096,
					(struct sockaddr *)&at, (int)at_len);
	if (!listener)
		fail("listen");
	struct event *term = evsignal_new(base, SIGTERM, on_term, base);
	evsignal_add(term, NULL);
	if (is_tcp) {
		struct sockaddr_in real;
		socklen_t len = sizeof real;
		char host[64];
		getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&real, &len);
		inet_ntop(AF_INET, &real.sin_addr, host, sizeof host);
		printf("tcp://%s:%u\n", host, ntohs(real.sin_port));
	} else {
		printf("unix://%s\n", path);
	}
	fflush(stdout);
	event_base_dispatch(base);
	event_free(term);
	evconnlistener_free(listener);
	event_base_free(base);
	if (path)
		unlink(path);
	return 0;
}
