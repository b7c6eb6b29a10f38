// Registers a person, recognises them and forgets them again; Java 17 or newer, no library: java Client.java ADDRESS PHOTO.
// Take the JSON library of your project where this one looks for a field by a pattern.

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;

public class Client {
    static final int TRIES = 5;
    static final String BOUNDARY = UUID.randomUUID().toString();

    final HttpClient http = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();
    final String address, key;

    Client(String address, String key) {
        this.address = address;
        this.key = key;
    }

    /** What was asked for was refused; the code is for programs, the text for people. */
    static class RefusedException extends RuntimeException {
        final String code;

        RefusedException(String problem) {
            super(find("detail", problem).get(0));
            code = find("code", problem).get(0);
        }
    }

    /** Sends a request until it is answered. One key for all tries: whatever it does is done once. */
    String request(String method, String path, BodyPublisher body) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(address + path))
            .header("Authorization", "Bearer " + key)
            .header("Idempotency-Key", UUID.randomUUID().toString())
            .header("Content-Type", "multipart/form-data; boundary=" + BOUNDARY)
            .timeout(Duration.ofSeconds(30)).method(method, body).build();
        for (int left = TRIES - 1; ; left--) {
            HttpResponse<String> answer;
            try {
                answer = http.send(request, BodyHandlers.ofString());
            } catch (IOException broken) {
                if (left == 0) throw broken;
                Thread.sleep(1000);
                continue;
            }
            if (answer.statusCode() / 100 == 2) return answer.body();
            RefusedException refused = new RefusedException(answer.body());
            boolean isFull = List.of(429, 503).contains(answer.statusCode()) && !refused.code.equals("worker_lost");
            if (left == 0 || !(isFull || refused.code.equals("idempotency_in_flight"))) throw refused;
            Thread.sleep(1000 * answer.headers().firstValueAsLong("Retry-After").orElse(1));
        }
    }

    String register(String externalId, String name, byte[] photo, String purpose) throws IOException, InterruptedException {
        return request("POST", "/v1/register", buildForm(photo, Map.of("external_id", externalId, "name", name,
            "consent_purpose", purpose, "consent_recorded_by", "reception")));
    }

    String recognise(byte[] photo) throws IOException, InterruptedException {
        return request("POST", "/v1/recognize", buildForm(photo, Map.of()));
    }

    void erase(String externalId) throws IOException, InterruptedException {
        request("DELETE", "/v1/collections/default/persons/external_id:" + externalId, BodyPublishers.noBody());
    }

    static BodyPublisher buildForm(byte[] photo, Map<String, String> fields) throws IOException {
        ByteArrayOutputStream form = new ByteArrayOutputStream();
        String part = "--" + BOUNDARY + "\r\nContent-Disposition: form-data; name=\"";
        for (Map.Entry<String, String> field : fields.entrySet()) {
            form.write((part + field.getKey() + "\"\r\n\r\n" + field.getValue() + "\r\n").getBytes(StandardCharsets.UTF_8));
        }
        form.write((part + "photo\"; filename=\"photo.jpg\"\r\n\r\n").getBytes(StandardCharsets.UTF_8));
        form.write(photo);
        form.write(("\r\n--" + BOUNDARY + "--\r\n").getBytes(StandardCharsets.UTF_8));
        return BodyPublishers.ofByteArray(form.toByteArray());
    }

    static List<String> find(String field, String json) {
        return Pattern.compile("\"" + field + "\":\\s*\"([^\"]*)\"").matcher(json).results().map((MatchResult found) -> found.group(1)).toList();
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Client vultus = new Client(arguments[0], System.getenv("KEY"));
        byte[] photo = Files.readAllBytes(Path.of(arguments[1]));
        try {
            String registered = vultus.register("E-1017", "Ada", photo, "Entry to building A");
            System.out.println("registered " + find("external_id", registered).get(0));
            String found = vultus.recognise(photo);
            System.out.println(find("verdict", found).get(0) + " " + find("name", found).get(0));
            vultus.erase("E-1017");
            System.out.println("after erasure: " + String.join(" ", find("verdict", vultus.recognise(photo))));
        } catch (RefusedException refused) {
            System.err.println(refused.code + ": " + refused.getMessage());
            System.exit(1);
        }
    }
}
