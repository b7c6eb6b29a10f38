// Sends pictures, JPEG or WebP, as a live session and prints who is in them; Java 17 or newer, no library: java Live.java ADDRESS PHOTO…
// Take the JSON library of your project where this one looks for a field by a pattern.

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

public class Live implements WebSocket.Listener {
    final List<String> files;
    final CompletableFuture<String> closed = new CompletableFuture<>();
    final StringBuilder message = new StringBuilder();
    long pauseMs;
    int sequence;

    Live(List<String> files) {
        this.files = files;
    }

    @Override
    public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean isLast) {
        message.append(part);
        if (isLast) {
            answer(socket, message.toString());
            message.setLength(0);
        }
        socket.request(1);
        return null;
    }

    void answer(WebSocket socket, String text) {
        String type = find("type", text).get(0);
        if (type.equals("welcome")) pauseMs = (long) (1000 / Double.parseDouble(find("frames_per_second", text).get(0)));
        else if (type.equals("refused")) System.out.println(sequence + " " + find("detail", text).get(0));
        else if (type.equals("result")) System.out.println(sequence + " " + find("verdict", text) + " " + find("name", text));
        else return;
        // The next frame when an answer came.
        CompletableFuture.delayedExecutor(pauseMs, TimeUnit.MILLISECONDS).execute(() -> sendNext(socket));
    }

    void sendNext(WebSocket socket) {
        if (sequence == files.size()) {
            socket.sendText("{\"type\": \"bye\"}", true);
            return;
        }
        try {
            byte[] picture = Files.readAllBytes(Path.of(files.get(sequence++)));
            ByteBuffer frame = ByteBuffer.allocate(16 + picture.length); // number and time, big-endian, then the picture
            socket.sendBinary(frame.putLong(sequence).putLong(System.currentTimeMillis()).put(picture).flip(), true);
        } catch (IOException unreadable) {
            closed.completeExceptionally(unreadable);
        }
    }

    @Override
    public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
        closed.complete(code == 1000 ? "" : "closed: " + code + " " + reason);
        return null;
    }

    @Override
    public void onError(WebSocket socket, Throwable broken) {
        closed.completeExceptionally(broken);
    }

    static List<String> find(String field, String json) {
        return Pattern.compile("\"" + field + "\":\\s*\"?([^\",}]*)").matcher(json).results().map(found -> found.group(1)).toList();
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        HttpClient http = HttpClient.newHttpClient();
        // A ticket opens one session, once.
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/live/tickets"))
            .header("Authorization", "Bearer " + System.getenv("KEY")).header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString("{\"collection\": \"default\"}")).build();
        String answer = http.send(request, BodyHandlers.ofString()).body();
        if (find("ticket", answer).isEmpty()) throw new IOException(find("detail", answer).get(0));

        Live live = new Live(List.of(arguments).subList(1, arguments.length));
        http.newWebSocketBuilder().subprotocols("vultus.live.v1", "ticket." + find("ticket", answer).get(0))
            .buildAsync(URI.create(arguments[0].replaceFirst("^http", "ws") + "/v1/live"), live).join();
        String ended = live.closed.join();
        if (!ended.isEmpty()) throw new IOException(ended);
    }
}
